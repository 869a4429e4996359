"""The role that each call of the wire contract needs. A call that is not listed is refused to everybody."""

from __future__ import annotations

from enum import Enum

from edgewright.errors import RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.services.callers import ClientCertificate


class CallerRole(Enum):
    """The roles a certificate can give. A deployer may do all that an observer may."""

    OBSERVER = "observer"
    DEPLOYER = "deployer"


_DEPLOYMENT, _INFERENCE = "/edgewright.v1.DeploymentService/", "/edgewright.v1.InferenceService/"
_TELEMETRY, _TRUST = "/edgewright.v1.TelemetryService/", "/edgewright.v1.TrustService/"

NEEDED: dict[str, CallerRole] = {
    f"{_DEPLOYMENT}GetDevice": CallerRole.OBSERVER,
    f"{_DEPLOYMENT}ListReleases": CallerRole.OBSERVER,
    f"{_DEPLOYMENT}QueryWriteStatus": CallerRole.OBSERVER,
    f"{_DEPLOYMENT}WatchDeployment": CallerRole.OBSERVER,
    f"{_DEPLOYMENT}FindMissingBlobs": CallerRole.DEPLOYER,  # it keeps blobs from being collected
    f"{_DEPLOYMENT}WriteBlob": CallerRole.DEPLOYER,
    f"{_DEPLOYMENT}FetchBlobs": CallerRole.DEPLOYER,
    f"{_DEPLOYMENT}StageRelease": CallerRole.DEPLOYER,
    f"{_DEPLOYMENT}ActivateRelease": CallerRole.DEPLOYER,
    f"{_DEPLOYMENT}ConfirmRelease": CallerRole.DEPLOYER,
    f"{_DEPLOYMENT}RollBack": CallerRole.DEPLOYER,
    f"{_DEPLOYMENT}DeleteRelease": CallerRole.DEPLOYER,
    f"{_DEPLOYMENT}CollectGarbage": CallerRole.DEPLOYER,
    f"{_DEPLOYMENT}ScrubStore": CallerRole.DEPLOYER,
    f"{_INFERENCE}Generate": CallerRole.DEPLOYER,
    f"{_INFERENCE}Score": CallerRole.DEPLOYER,
    f"{_TELEMETRY}GetSnapshot": CallerRole.OBSERVER,
    f"{_TELEMETRY}WatchTelemetry": CallerRole.OBSERVER,
    f"{_TELEMETRY}RunBenchmark": CallerRole.DEPLOYER,
    f"{_TRUST}GetTrust": CallerRole.OBSERVER,
    f"{_TRUST}UpdateTrust": CallerRole.DEPLOYER,  # the root's signatures decide; the role only keeps others out
}


def check_role(method: str, certificate: ClientCertificate | None) -> None:
    """Raises RefusedError (`PERMISSION`) unless the certificate's role may make this call."""
    held = frozenset[str]() if certificate is None else certificate.roles
    needed = NEEDED.get(method)
    if needed is not None and (CallerRole.DEPLOYER.value in held or needed.value in held):
        return
    verb = method.rpartition("/")[2]
    has = ", ".join(sorted(held)) or "none"
    if needed is None:
        message = f"{verb} has no role in this agent, so nobody may call it; the certificate's role is {has}."
    else:
        message = (
            f"{verb} needs the role {needed.value}; the certificate's role is {has}. Use the {needed.value}'s "
            "certificate; a role is a URI name in a certificate for clients."
        )
    raise RefusedError(message, Reason.REASON_PERMISSION)

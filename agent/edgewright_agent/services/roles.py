"""Which role each call of the wire contract needs. A call that is not listed is refused to everybody."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edgewright.errors import RefusedError
from edgewright.v1.common_pb2 import Reason

ROLE_PREFIX = "edgewright:role:"  # of a URI name in the client's certificate


class CallerRole(Enum):
    """Who a certificate makes its holder. A deployer may do all that an observer may."""

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


def check_role(method: str, auth_context: Mapping[str, Iterable[bytes]]) -> None:
    """Raises RefusedError (`PERMISSION`) unless the certificate's role may make this call."""
    held, needed = roles_of(auth_context), NEEDED.get(method)
    if needed is not None and (CallerRole.DEPLOYER.value in held or needed.value in held):
        return
    verb = method.rpartition("/")[2]
    has = ", ".join(sorted(held)) or "none"
    if needed is None:
        message = f"{verb} has no role in this agent, so nobody may call it; the certificate's role is {has}."
    else:
        message = (
            f"{verb} needs the role {needed.value}; the certificate's role is {has}. "
            f"Use the {needed.value}'s certificate."
        )
    raise RefusedError(message, Reason.REASON_PERMISSION)


def roles_of(auth_context: Mapping[str, Iterable[bytes]]) -> set[str]:
    """The roles named in a verified client certificate."""
    names = (name.decode(errors="replace") for name in auth_context.get("x509_subject_alternative_name", ()))
    return {name.removeprefix(ROLE_PREFIX) for name in names if name.startswith(ROLE_PREFIX)}


def certificate_sha256(auth_context: Mapping[str, Iterable[bytes]]) -> str | None:
    """SHA-256 of the client's certificate in DER, hex; None if the call came without one."""
    for pem in auth_context.get("x509_pem_cert", ()):
        der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        return hashlib.sha256(der).hexdigest()
    return None

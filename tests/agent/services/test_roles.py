"""Which role every call of the wire contract needs, from the contract itself: a new call without one fails here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgewright.errors import RefusedError
from edgewright.v1 import deployment_pb2, inference_pb2, telemetry_pb2, trust_pb2
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.services import grpc_server
from edgewright_agent.services.callers import certificate_of
from edgewright_agent.services.guard import require_role
from edgewright_agent.services.roles import NEEDED, CallerRole
from edgewright_builder.keys.credentials import create_credentials

MODULES = (deployment_pb2, inference_pb2, telemetry_pb2, trust_pb2)
CALLS = sorted(
    f"/{service.full_name}/{method.name}"
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
# Everything an observer may do. Whoever adds to this list says that it changes nothing on the board.
OBSERVER = {
    "GetDevice", "QueryWriteStatus", "WatchDeployment", "ListReleases", "GetSnapshot", "WatchTelemetry",
    "GetTrust",
}  # fmt: skip


URI, DNS = x509.UniformResourceIdentifier, x509.DNSName
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(names: Sequence[x509.GeneralName], usage: Sequence[x509.ObjectIdentifier] | None) -> bytes:
    """A certificate with these names, for these uses, in PEM. Its signature was verified before roles are asked."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgewright:role:deployer")])
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    )  # fmt: skip
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


class Caller:
    """As much of a call's context as the role check looks at, as gRPC fills it."""

    def __init__(self, pem: bytes) -> None:
        self._pem = pem

    def auth_context(self) -> dict[str, list[bytes]]:
        names = x509.load_pem_x509_certificate(self._pem).extensions
        try:
            alternative = names.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            alternative = x509.SubjectAlternativeName([])
        of_any_kind = [str(name.value).encode() for name in alternative]
        return {"x509_pem_cert": [self._pem], "x509_subject_alternative_name": of_any_kind}


def may(call: str, *names: str) -> bool:
    return lets_in(call, certificate([URI(name) for name in names], [CLIENT]))


def lets_in(call: str, pem: bytes) -> bool:
    caller: Any = Caller(pem)
    try:
        require_role(call, True, caller)
    except RefusedError as error:
        if error.reason == Reason.REASON_PERMISSION:
            return False
        raise
    return True


def test_every_service_of_the_contract_is_looked_at() -> None:
    folder = Path(deployment_pb2.__file__).parent
    stubs = {path.stem.removesuffix("_grpc") for path in folder.glob("*_pb2_grpc.py")}
    assert stubs == {module.__name__.rpartition(".")[2] for module in MODULES}
    assert set(NEEDED) == set(CALLS)
    assert {call.rpartition("/")[2] for call in CALLS} >= OBSERVER
    assert {call.split("/")[1] for call in CALLS} == set(grpc_server.SERVICES)


@pytest.mark.parametrize("call", CALLS)
def test_the_roles_of_each_call(call: str) -> None:
    name = call.rpartition("/")[2]
    assert may(call, "edgewright:role:deployer")
    assert may(call, "edgewright:role:observer") == (name in OBSERVER)
    assert (NEEDED[call] is CallerRole.OBSERVER) == (name in OBSERVER)
    for names in ((), ("board.lan",), ("edgewright:role:admin",), ("role:deployer",), ("edgewright:role:",)):
        assert not may(call, *names)


def test_a_call_that_nobody_gave_a_role_is_refused_to_everybody() -> None:
    assert not may("/edgewright.v1.DeploymentService/FormatDisk", "edgewright:role:deployer")


DEPLOYER_NAME = "edgewright:role:deployer"
CALL = "/edgewright.v1.DeploymentService/ActivateRelease"


@pytest.mark.parametrize(
    "names",
    [
        [DNS(DEPLOYER_NAME)],
        [x509.RFC822Name(f"{DEPLOYER_NAME}@lan")],
        [DNS(DEPLOYER_NAME), URI("edgewright:role:observer")],
        [x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))],
        [x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x0c\x18" + DEPLOYER_NAME.encode())],
        [x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DEPLOYER_NAME)]))],
        [],  # the subject's common name is no role either
    ],
)
def test_only_a_uri_name_gives_a_role(names: list[x509.GeneralName]) -> None:
    assert not lets_in(CALL, certificate(names, [CLIENT]))
    assert lets_in(CALL, certificate([*names, URI(DEPLOYER_NAME)], [CLIENT]))


@pytest.mark.parametrize("usage", [None, [SERVER], [ExtendedKeyUsageOID.CODE_SIGNING]])
def test_a_certificate_that_is_not_for_clients_gives_no_role(
    usage: list[x509.ObjectIdentifier] | None,
) -> None:
    assert not lets_in(CALL, certificate([URI(DEPLOYER_NAME)], usage))
    assert lets_in(CALL, certificate([URI(DEPLOYER_NAME)], [*(usage or []), CLIENT]))


def test_a_certificate_is_named_by_the_sha256_of_its_der(tmp_path: Path) -> None:
    create_credentials(tmp_path / "keys")
    pem = (tmp_path / "keys" / "observer.pem").read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    shown = certificate_of({"x509_pem_cert": [pem]})
    assert shown is not None
    assert (shown.sha256, shown.roles) == (hashlib.sha256(der).hexdigest(), frozenset({"observer"}))
    assert certificate_of({}) is None

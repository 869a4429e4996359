"""Which role every call of the wire contract needs, from the contract itself: a new call without one fails here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edgewright.errors import RefusedError
from edgewright.v1 import deployment_pb2, inference_pb2, telemetry_pb2, trust_pb2
from edgewright.v1.common_pb2 import Reason
from edgewright_agent import server
from edgewright_agent.services.guard import require_role
from edgewright_agent.services.roles import NEEDED, CallerRole, certificate_sha256
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


class Caller:
    """As much of a call's context as the role check looks at."""

    def __init__(self, *names: str) -> None:
        self._names = [name.encode() for name in names]

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_subject_alternative_name": self._names}


def may(call: str, *names: str) -> bool:
    caller: Any = Caller(*names)
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
    assert {call.split("/")[1] for call in CALLS} == set(server._SERVICES)


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


def test_a_certificate_is_named_by_the_sha256_of_its_der(tmp_path: Path) -> None:
    create_credentials(tmp_path / "keys")
    pem = (tmp_path / "keys" / "observer.pem").read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    assert certificate_sha256({"x509_pem_cert": [pem]}) == hashlib.sha256(der).hexdigest()
    assert certificate_sha256({}) is None

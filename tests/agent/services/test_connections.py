"""Clients that hold connections and calls without a right to: a deployer's call is answered all the same."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest

from edgewright.address import Address, parse_address
from edgewright.errors import BusyError
from edgewright.v1 import deployment_pb2, deployment_pb2_grpc, telemetry_pb2, telemetry_pb2_grpc
from edgewright_agent.runtime.tls import TlsFiles
from edgewright_agent.server import run_agent
from edgewright_agent.services import connections as guards
from edgewright_agent.services.callers import ClientCertificate
from edgewright_agent.services.certificate_limits import (
    OBSERVER_BURST_CALLS,
    OBSERVER_CALLS_MAX,
    OBSERVERS_CALLS_MAX,
    CallLimits,
)
from edgewright_agent.services.connections import ConnectionGuard, parse_peer
from edgewright_agent.services.roles import CallerRole
from edgewright_builder.keys.credentials import create_credentials
from tests.agent.conftest import settings_for
from tests.agent.services.test_deployment_service import reason_of
from tests.support.agent_process import AgentProcess, serving
from tests.support.artifacts import TIMEOUT_SECONDS
from tests.support.scripted_engine import only_fake

HANDLES = 64
CONNECTIONS = 100
CLIENT_HELLO = b"\x16\x03\x01"  # the beginning of a TLS handshake that nobody goes on with
OBSERVER = ClientCertificate("ab" * 32, frozenset({"observer"}))
DEPLOYER = ClientCertificate("cd" * 32, frozenset({"deployer"}))


@dataclass(frozen=True)
class Crowded:
    """A running agent that may have few file handles, and where its OpenAI-compatible server listens."""

    agent: AgentProcess
    openai: Path


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials") / "keys"
    create_credentials(folder)
    return folder


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory, credentials: Path) -> Iterator[Crowded]:
    openai = tmp_path_factory.mktemp("openai") / "socket"
    options = (
        "--listen", "127.0.0.1:0", "--tls-cert", str(credentials / "agent.pem"),
        "--tls-key", str(credentials / "agent.key"), "--tls-ca", str(credentials / "ca.pem"),
        "--openai", f"unix:{openai}", "--metrics", "127.0.0.1:0", "--store-reserve", "0B",
    )  # fmt: skip
    with serving(tmp_path_factory.mktemp("store"), *options, handles=HANDLES) as agent:
        yield Crowded(agent, openai)


@contextlib.asynccontextmanager
async def calling(address: str, credentials: Path, who: str) -> AsyncIterator[grpc.aio.Channel]:
    files = [(credentials / name).read_bytes() for name in ("ca.pem", f"{who}.key", f"{who}.pem")]
    own_connection = (("grpc.use_local_subchannel_pool", 1),)
    tls = grpc.ssl_channel_credentials(*files)
    async with grpc.aio.secure_channel(address, tls, options=own_connection) as channel:
        yield channel


async def ask(channel: grpc.aio.Channel) -> Any:
    stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
    request = deployment_pb2.GetDeviceRequest()
    return await stub.GetDevice(request, timeout=TIMEOUT_SECONDS, wait_for_ready=True)


@contextlib.contextmanager
def holding(address: Address, begins_with: bytes, *, addresses: int = 1) -> Iterator[list[socket.socket]]:
    """Connections that send this and then nothing, from so many addresses of this machine."""
    with contextlib.ExitStack() as stack:
        held = []
        for number in range(CONNECTIONS):
            source = (f"127.0.0.{1 + number % addresses}", 0)
            connection = socket.create_connection((address.host, address.port), source_address=source)
            held.append(stack.enter_context(connection))
            connection.sendall(begins_with)
        yield held


@pytest.mark.parametrize("begins_with", [b"", CLIENT_HELLO, b"PRI * HTTP/2.0"])
@pytest.mark.parametrize("addresses", [1, 50])
async def test_connections_that_say_nothing_keep_no_deployer_and_no_openai_client_out(
    crowded: Crowded, credentials: Path, begins_with: bytes, addresses: int
) -> None:
    agent = crowded.agent
    with holding(parse_address(agent.address), begins_with, addresses=addresses):
        async with calling(agent.address, credentials, "deployer") as channel:
            assert (await ask(channel)).profile_id
        transport = httpx.AsyncHTTPTransport(uds=str(crowded.openai))
        async with httpx.AsyncClient(transport=transport, base_url="http://board") as client:
            answer = await client.get("/v1/models", timeout=TIMEOUT_SECONDS)
        assert answer.json()["error"]["message"].startswith("No release is being served")
    assert agent.process.poll() is None


async def test_a_connection_that_does_not_call_is_closed_in_time(
    tmp_path: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "HANDSHAKE_SECONDS", 0.5)
    tls = TlsFiles(credentials / "agent.pem", credentials / "agent.key", credentials / "ca.pem")
    async with run_agent(settings_for(tmp_path, tls=tls), available_engines=only_fake) as agent:
        with holding(agent.address, CLIENT_HELLO) as held:
            await asyncio.to_thread(read_to_the_end, held)


def read_to_the_end(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.settimeout(TIMEOUT_SECONDS)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(4096):  # an alert may come before the end
                pass


async def open_streams(channel: grpc.aio.Channel, count: int) -> tuple[list[Any], list[str]]:
    """Telemetry streams that have given a snapshot, and the reasons why others were refused."""
    stub = telemetry_pb2_grpc.TelemetryServiceStub(channel)
    request = telemetry_pb2.WatchTelemetryRequest(interval_seconds=0.1)
    streams: list[Any] = []
    reasons: list[str] = []

    async def begin() -> None:
        call = stub.WatchTelemetry(request)
        try:
            await anext(aiter(call))
            streams.append(call)
        except grpc.aio.AioRpcError as error:
            reasons.append(reason_of(error))

    await asyncio.gather(*(begin() for _ in range(count)))
    return streams, reasons


async def test_an_observer_opens_few_streams_and_a_deployer_calls_meanwhile(
    crowded: Crowded, credentials: Path
) -> None:
    async with (
        calling(crowded.agent.address, credentials, "observer") as observer,
        calling(crowded.agent.address, credentials, "deployer") as deployer,
    ):
        streams, reasons = await open_streams(observer, 60)
        assert 0 < len(streams) <= OBSERVER_CALLS_MAX
        assert set(reasons) == {"OVERLOADED"}
        assert (await ask(deployer)).profile_id
        for stream in streams:
            stream.cancel()
        for _ in range(100):
            again, _ = await open_streams(observer, 1)
            if again:
                break
            await asyncio.sleep(0.1)  # the board has not noticed yet
        assert again


async def test_an_observer_with_many_connections_keeps_no_deployer_out(
    crowded: Crowded, credentials: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(40):
            observer = await stack.enter_async_context(
                calling(crowded.agent.address, credentials, "observer")
            )
            stub = deployment_pb2_grpc.DeploymentServiceStub(observer)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await stub.GetDevice(deployment_pb2.GetDeviceRequest(), timeout=TIMEOUT_SECONDS)
        deployer = await stack.enter_async_context(calling(crowded.agent.address, credentials, "deployer"))
        assert (await ask(deployer)).profile_id


def test_all_observers_together_leave_room_for_a_deployer() -> None:
    limits = CallLimits(clock=lambda: 0.0)
    with contextlib.ExitStack() as stack:
        for number in range(OBSERVERS_CALLS_MAX):
            certificate = ClientCertificate(f"{number // OBSERVER_CALLS_MAX:064x}", OBSERVER.roles)
            stack.enter_context(limits.hold(certificate))
        with pytest.raises(BusyError, match="together"):
            stack.enter_context(limits.hold(OBSERVER))
        with limits.hold(DEPLOYER):
            pass
    with limits.hold(OBSERVER):  # all of them have ended
        pass


def test_an_observer_that_calls_without_a_pause_is_slowed_down_and_no_deployer_is() -> None:
    seconds = [0.0]
    limits = CallLimits(clock=lambda: seconds[0])

    def calls_until_refused(certificate: ClientCertificate, most: int) -> int:
        for number in range(most):
            try:
                with limits.hold(certificate):
                    pass
            except BusyError:
                return number
        return most

    assert calls_until_refused(OBSERVER, 1000) == OBSERVER_BURST_CALLS
    seconds[0] += 1.0
    assert 0 < calls_until_refused(OBSERVER, 1000) < OBSERVER_BURST_CALLS
    assert calls_until_refused(DEPLOYER, 1000) == 1000


@pytest.mark.parametrize(
    ("peer", "parsed"),
    [
        ("ipv4:192.0.2.7:1234", ("192.0.2.7", 1234)),
        ("ipv6:%5B2001:db8::1%5D:1234", ("2001:db8::1", 1234)),
        ("ipv6:[::ffff:192.0.2.7]:1234", ("192.0.2.7", 1234)),
        ("unix:", None),
    ],
)
def test_a_peer_is_named_as_its_socket_is(peer: str, parsed: tuple[str, int] | None) -> None:
    assert parse_peer(peer) == parsed


def connections(*groups: tuple[int, float, CallerRole | None, str]) -> dict[Any, Any]:
    """(how many, since when, role, address) each."""
    ports = itertools.count(1)
    return {
        (address, next(ports)): guards._Connection(since, role)
        for count, since, role, address in groups
        for _ in range(count)
    }


def test_the_oldest_connections_that_have_not_called_give_way_before_a_deployer_finds_no_place() -> None:
    many = connections((40, 0.0, None, "a"), (40, 0.5, None, "b"), (40, 0.9, CallerRole.DEPLOYER, "c"))
    closed = guards.surplus(many, 128, now_seconds=0.9)
    assert len(closed) == 24
    assert {host for host, _ in closed} == {"a"}


def test_one_address_holds_few_connections_that_have_not_called() -> None:
    closed = guards.surplus(connections((60, 0.0, None, "a"), (3, 0.0, None, "b")), 128, now_seconds=2.0)
    assert (len(closed), {host for host, _ in closed}) == (60 - 128 // 8, {"a"})


def test_who_called_stays_and_observers_hold_half_the_places_at_most() -> None:
    called = connections((70, 0.0, CallerRole.DEPLOYER, "a"), (50, 0.0, CallerRole.OBSERVER, "b"))
    assert guards.surplus(called, 128, now_seconds=1e6) == set()
    crowd = connections((90, 0.0, CallerRole.OBSERVER, "b"))
    assert len(guards.surplus(crowd, 128, now_seconds=1e6)) == 90 - 64


def test_a_revoked_certificate_loses_its_connection_and_the_streams_on_it() -> None:
    revoked: set[str] = set()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        guard = ConnectionGuard(listener.getsockname()[1], 8, revoked.__contains__)
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        accepted, (host, port) = listener.accept()
        stack.enter_context(accepted)
        guard.called(f"ipv4:{host}:{port}", OBSERVER)
        assert guard.sweep() == 1
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        revoked.add(OBSERVER.sha256)
        guard.sweep()
        client.settimeout(TIMEOUT_SECONDS)
        assert client.recv(1) == b""

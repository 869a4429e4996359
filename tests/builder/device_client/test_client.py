from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.address import Address
from edgewright.errors import BusyError, InputError, OutsideError, RefusedError
from edgewright.v1 import inference_pb2 as inference
from edgewright.v1.common_pb2 import Reason
from edgewright_builder.device_client.backoff import Patience, jittered_seconds
from edgewright_builder.device_client.board_scorer import RemoteScorer
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.failures import BUSY_REASONS, INPUT_REASONS, OUTSIDE_REASONS, LinkError
from edgewright_builder.keys.credentials import create_credentials
from tests.support.device_simulator import Board, simulated_device
from tests.support.prompt_retries import prompt_retries

__all__ = ["prompt_retries"]  # the fixture
pytestmark = pytest.mark.usefixtures("prompt_retries")

UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "")


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
async def client(board: Board) -> AsyncIterator[DeviceClient]:
    async with simulated_device(board) as address, DeviceClient(address, None) as client:
        yield client


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    create_credentials(folder)
    return folder


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers")
    create_credentials(folder)
    return folder


def server_credentials(folder: Path) -> grpc.ServerCredentials:
    pair = (folder / "agent.key").read_bytes(), (folder / "agent.pem").read_bytes()
    return grpc.ssl_server_credentials([pair], (folder / "ca.pem").read_bytes(), require_client_auth=True)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("board-7.local:50051", Address("board-7.local", 50051)),
        ("192.0.2.7:1", Address("192.0.2.7", 1)),
        ("[::1]:7443", Address("::1", 7443)),
    ],
)
def test_addresses_are_host_and_port(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "board",
        ":7443",
        "board:",
        "board:0",
        "board:65536",
        "board:x",
        "::1:7443",
        "a b:1",
        "[::1]",
        "http://a:1",
    ],
)
def test_other_addresses_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=r"not of the form HOST:PORT, as in"):
        parse_address(text)


@pytest.mark.parametrize("host", ["192.0.2.7", "board-7.local", "0.0.0.0", "localhost.example.org"])
def test_insecure_is_for_loopback_only(host: str) -> None:
    with pytest.raises(InputError, match="not on this machine, so it needs TLS"):
        DeviceClient(Address(host, 7443), None)


def test_missing_credentials_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ca\.pem can't be read \(No such file"):
        DeviceClient(Address("localhost", 7443), tmp_path)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_mutual_tls_connects(board: Board, credentials: Path, host: str) -> None:
    async with (
        simulated_device(board, credentials=server_credentials(credentials)) as address,
        DeviceClient(Address(host, address.port), credentials) as client,
    ):
        assert (await client.get_device()).hostname == "board-7"


async def test_an_agent_of_another_authority_is_not_trusted(
    board: Board, credentials: Path, strangers: Path
) -> None:
    async with (
        simulated_device(board, credentials=server_credentials(strangers)) as address,
        DeviceClient(address, credentials) as client,
    ):
        with pytest.raises(
            OutsideError, match=r"certificate of .* is not trusted .*CERTIFICATE_VERIFY_FAILED"
        ):
            await client.get_device()


async def test_a_certificate_for_another_host_says_how_to_make_one(board: Board, credentials: Path) -> None:
    async with (
        simulated_device(board, credentials=server_credentials(credentials), host="127.0.0.2") as address,
        DeviceClient(address, credentials) as client,
    ):
        with pytest.raises(
            OutsideError, match=r"other hosts: .*`edgewright keys certificate DIR --host 127\.0\.0\.2`"
        ):
            await client.get_device()


async def test_a_client_certificate_of_another_authority_is_refused(
    board: Board, credentials: Path, strangers: Path, tmp_path: Path
) -> None:
    for name, source in {"ca.pem": credentials, "deployer.pem": strangers, "deployer.key": strangers}.items():
        (tmp_path / name).write_bytes((source / name).read_bytes())
    async with (
        simulated_device(board, credentials=server_credentials(credentials)) as address,
        DeviceClient(address, tmp_path) as client,
    ):
        with pytest.raises(OutsideError, match="refuses the client certificate"):
            await client.get_device()


async def test_tls_against_an_agent_without_says_so(board: Board, credentials: Path) -> None:
    async with simulated_device(board) as address, DeviceClient(address, credentials) as client:
        with pytest.raises(OutsideError, match="does not speak TLS"):
            await client.get_device()


async def test_no_tls_against_an_agent_with_says_so(board: Board, credentials: Path) -> None:
    async with (
        simulated_device(board, credentials=server_credentials(credentials)) as address,
        DeviceClient(address, None) as client,
    ):
        with pytest.raises(OutsideError, match="hangs up on a call without TLS: give --credentials"):
            await client.get_device()


async def test_an_agent_that_is_not_there_is_one_sentence() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", unused.getsockname()[1])
        async with DeviceClient(address, None) as client:
            with pytest.raises(
                LinkError, match=rf"No agent can be reached at {address} \(.*refused\): check"
            ) as caught:
                await client.get_device()
    assert caught.value.exit_code == 3


async def test_a_host_without_an_address_is_one_sentence(credentials: Path) -> None:
    async with DeviceClient(Address("no-such-board.invalid", 7443), credentials) as client:
        with pytest.raises(
            LinkError, match=r"No agent can be reached at no-such-board\.invalid:7443 \([A-Z][^]]*\): check"
        ):
            await client.get_device()


async def test_something_else_at_the_address_is_no_agent() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with DeviceClient(Address("127.0.0.1", port), None) as client:
        with pytest.raises(OutsideError, match="no Edgewright agent, or an older one"):
            await client.get_device()
    await server.stop(None)


async def test_a_question_is_asked_again_when_the_link_fails(board: Board, client: DeviceClient) -> None:
    board.refuse = {"GetDevice": [UNAVAILABLE] * 3}
    assert (await client.get_device()).profile_id == "this-host"
    assert board.calls == ["GetDevice"] * 4


async def test_a_question_is_not_asked_for_ever(board: Board, client: DeviceClient) -> None:
    board.refuse = {"GetDevice": [UNAVAILABLE] * 99}
    with pytest.raises(LinkError):
        await client.get_device()
    assert board.calls == ["GetDevice"] * 5


async def test_a_change_is_not_repeated_by_itself(board: Board, client: DeviceClient) -> None:
    board.refuse = {"RollBack": [UNAVAILABLE] * 9}
    with pytest.raises(LinkError):
        await client.roll_back()
    assert board.calls == ["RollBack"]


@pytest.mark.parametrize("name", sorted(set(Reason.keys()) - {"REASON_UNSPECIFIED"}))
async def test_every_reason_keeps_its_name_and_sentence(
    board: Board, client: DeviceClient, name: str
) -> None:
    reason = Reason.Value(name)
    board.refuse = {"ListReleases": [(grpc.StatusCode.FAILED_PRECONDITION, name.removeprefix("REASON_"))]}
    with pytest.raises((InputError, RefusedError, OutsideError), match="refused by the simulator") as caught:
        await client.list_releases()
    assert caught.value.reason == reason
    expected = {**dict.fromkeys(INPUT_REASONS, 2), **dict.fromkeys(OUTSIDE_REASONS, 3)}.get(reason, 1)
    assert caught.value.exit_code == expected
    assert isinstance(caught.value, BusyError) == (reason in BUSY_REASONS)


@pytest.mark.parametrize("name", ["UNSPECIFIED", "FROM_A_NEWER_AGENT"])
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InputError),
        (grpc.StatusCode.UNAVAILABLE, LinkError),
        (grpc.StatusCode.FAILED_PRECONDITION, RefusedError),
    ],
)
async def test_an_unknown_reason_is_judged_by_its_status(
    board: Board, client: DeviceClient, name: str, code: grpc.StatusCode, expected: type[Exception]
) -> None:
    board.refuse = {"RollBack": [(code, name)]}
    with pytest.raises(expected, match="RollBack is refused by the simulator"):
        await client.roll_back()


async def test_leaving_a_generation_frees_the_engine(board: Board, client: DeviceClient) -> None:
    board.tokens = ["a"] * 1_000_000  # far more than a connection holds before its reader has read
    stream = client.generate(inference.GenerateRequest(prompt="x"))
    async for _ in stream:
        break
    await stream.aclose()
    while not board.cancelled:  # pytest's time limit ends it where that does not come
        await asyncio.sleep(0.02)


async def test_the_remote_scorer_asks_in_batches_of_64_and_keeps_the_order(
    board: Board, client: DeviceClient
) -> None:
    items = [("context", ["x" * (index + 1), "yy"]) for index in range(130)]
    scorer = RemoteScorer(client, asyncio.get_running_loop())
    scores = await asyncio.to_thread(scorer.score, items)
    assert scores == [[-float(index + 1), -2.0] for index in range(130)]
    assert board.calls == ["Score"] * 3


async def test_the_remote_scorer_waits_while_the_board_is_busy(board: Board, client: DeviceClient) -> None:
    board.refuse = {"Score": [(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")] * 2}
    scorer = RemoteScorer(client, asyncio.get_running_loop())
    assert await asyncio.to_thread(scorer.score, [("a", ["bcd"])]) == [[-3.0]]


@given(st.integers(0, 100), st.floats(0.001, 1), st.floats(0.001, 10))
def test_delays_are_bounded_by_cap_and_growth(failures: int, base: float, cap: float) -> None:
    assert 0 <= jittered_seconds(failures, base_seconds=base, cap_seconds=cap) <= min(cap, base * 2**failures)


async def test_patience_is_whole_again_when_something_moves() -> None:
    patience, error = Patience(0.05, base_seconds=0.001), LinkError("gone")
    patience.progressed(10)
    await asyncio.sleep(0.06)
    patience.progressed(9)
    await patience.wait(error)
    await asyncio.sleep(0.06)
    patience.progressed(9)  # the same as before: nothing has moved
    with pytest.raises(LinkError):
        await patience.wait(error)

"""Where a board says "soon", a client waits within a deadline; what the board had begun is never repeated by itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from edgewright.errors import BusyError, EdgewrightError, OutsideError, RefusedError
from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import inference_pb2 as inference
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.benchmark.load import BenchmarkPlan
from edgewright_builder.bench.board import run_on_board
from edgewright_builder.device_client import verdict as verdicts
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.failures import LinkError
from edgewright_builder.keys.credentials import create_credentials
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.push.push import push
from edgewright_builder.push.transfer import TransferListener
from tests.builder.device_client.test_agent import agent_process
from tests.support.built_artifacts import make_artifact
from tests.support.device_simulator import LINK_BREAKS, Board, simulated_device
from tests.support.gates import gate
from tests.support.prompt_retries import prompt_retries

__all__ = ["gate", "prompt_retries"]  # the fixtures
pytestmark = pytest.mark.usefixtures("prompt_retries")

STARTING = (grpc.StatusCode.UNAVAILABLE, "ENGINE_STARTING")
FAILED = (grpc.StatusCode.UNAVAILABLE, "ENGINE_FAILED")
OVERLOADED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
NOTHING = (grpc.StatusCode.FAILED_PRECONDITION, "NO_ACTIVE_RELEASE")
BUSY = (grpc.StatusCode.ABORTED, "BUSY")
BROKEN = (grpc.StatusCode.UNAVAILABLE, "")
RESULT = telemetry.RunBenchmarkResponse(result=telemetry.BenchmarkResult(prompts=1))
PROGRESS = telemetry.RunBenchmarkResponse(progress=telemetry.BenchmarkProgress(prompts_total=1))


@pytest.fixture
def board() -> Board:
    return Board(tokens=["a", "b"], benchmark=[RESULT])


@pytest.fixture
def heard() -> list[EdgewrightError]:
    return []


@pytest.fixture
async def client(board: Board, heard: list[EdgewrightError]) -> AsyncIterator[DeviceClient]:
    async with (
        simulated_device(board) as address,
        DeviceClient(address, None, on_wait=heard.append) as client,
    ):
        yield client


async def text_of(client: DeviceClient) -> str:
    events = [event async for event in client.generate(inference.GenerateRequest(prompt="x"))]
    return "".join(delta.text for event in events for delta in event.deltas)


@pytest.mark.parametrize("soon", [STARTING, OVERLOADED, BROKEN])
async def test_a_generation_waits_where_the_board_says_soon(
    board: Board, client: DeviceClient, soon: tuple[grpc.StatusCode, str]
) -> None:
    board.refuse = {"Generate": [soon, soon]}
    assert await text_of(client) == "ab"
    assert board.calls == ["Generate"] * 3


async def test_a_generation_waits_while_the_board_changes_releases(
    board: Board, client: DeviceClient, heard: list[EdgewrightError]
) -> None:
    board.refuse, board.phase = {"Generate": [NOTHING]}, deployment.PHASE_ACTIVATING
    assert await text_of(client) == "ab"
    assert [error.reason for error in heard] == [Reason.REASON_NO_ACTIVE_RELEASE]


async def test_a_board_at_rest_without_a_release_is_not_waited_for(
    board: Board, client: DeviceClient
) -> None:
    board.refuse = {"Generate": [NOTHING]}
    with pytest.raises(RefusedError):
        await text_of(client)


async def test_a_request_that_the_engine_died_over_is_not_sent_again(
    board: Board, client: DeviceClient
) -> None:
    board.refuse = {"Generate": [FAILED] * 5}
    with pytest.raises(OutsideError) as caught:
        await text_of(client)
    assert caught.value.reason == Reason.REASON_ENGINE_FAILED
    assert board.calls == ["Generate"]


async def test_a_generation_that_has_begun_is_not_begun_again(board: Board) -> None:
    board.tokens = ["a"] * 1000
    async with simulated_device(board) as address:
        client = DeviceClient(address, None)
        stream = client.generate(inference.GenerateRequest(prompt="x"))
        await anext(stream)
    async with client, simulated_device(board, port=address.port):
        with pytest.raises(LinkError):
            [event async for event in stream]
    assert board.calls.count("Generate") == 1


async def test_the_wait_has_an_end_and_then_the_boards_own_sentence(board: Board) -> None:
    board.refuse = {"Generate": [STARTING] * 99}
    async with simulated_device(board) as address, DeviceClient(address, None, soon_seconds=0.3) as client:
        with pytest.raises(OutsideError, match="Generate is refused by the simulator") as caught:
            await text_of(client)
    assert caught.value.reason == Reason.REASON_ENGINE_STARTING


@pytest.mark.parametrize("soon", [STARTING, BUSY])
async def test_a_benchmark_waits_for_the_engine_and_for_another_benchmark(
    board: Board, client: DeviceClient, soon: tuple[grpc.StatusCode, str]
) -> None:
    board.refuse = {"RunBenchmark": [soon]}
    assert (await run_on_board(client, BenchmarkPlan(1, 1, 1, 1), lambda *step: None)).prompts == 1


async def test_a_benchmark_whose_link_breaks_is_run_anew(
    board: Board, client: DeviceClient, heard: list[EdgewrightError]
) -> None:
    board.benchmark_repeats = [[PROGRESS, LINK_BREAKS]]
    assert (await run_on_board(client, BenchmarkPlan(1, 1, 1, 1), lambda *step: None)).prompts == 1
    assert len(board.benchmark_requests) == 2
    assert isinstance(heard[0], LinkError)


async def test_a_scrub_waits_for_another_scrub(board: Board, client: DeviceClient) -> None:
    board.refuse = {"ScrubStore": [BUSY]}
    assert [step async for step in client.scrub_store()][-1].done


async def test_other_calls_are_told_at_once_that_the_board_is_busy(
    board: Board, client: DeviceClient
) -> None:
    board.refuse = {"RollBack": [BUSY]}
    with pytest.raises(BusyError):
        await client.roll_back()


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    create_credentials(folder)
    return folder


def slow_artifact(folder: Path, credentials: Path, **behaviour: object) -> Path:
    key = load_signing_key(credentials / "release.key")
    contents = {"engine/model.bin": bytes(1000), "engine/fake.json": json.dumps(behaviour).encode()}
    return make_artifact(folder, contents, key).folder


async def test_a_push_of_what_is_active_waits_until_it_answers(
    tmp_path: Path, credentials: Path, gate: Path
) -> None:
    gate.touch()
    artifact = slow_artifact(tmp_path / "artifact", credentials, starts_once_exists=gate.name)
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        if text == "the engine is being started":
            gate.touch()

    with agent_process(tmp_path / "store", credentials) as (_, port):
        async with DeviceClient(parse_address(f"localhost:{port}"), credentials) as client:
            await push(client, artifact, None)
    gate.unlink()
    with agent_process(tmp_path / "store", credentials) as (_, port):
        address = parse_address(f"localhost:{port}")
        async with DeviceClient(address, credentials, soon_seconds=0) as client:
            result = await push(client, artifact, None, listener=TransferListener(note=note))
            assert result.verdict is not None
            assert result.verdict.committed
            assert await text_of(client)  # at once
    assert "the engine is being started" in notes


async def test_a_push_of_what_is_active_says_when_its_engine_does_not_answer(
    board: Board, client: DeviceClient, tmp_path: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "ANSWER_SECONDS", 0.0)
    board.engine_starting = True
    artifact = slow_artifact(tmp_path / "artifact", credentials)
    with pytest.raises(OutsideError, match=r"is active on .* its engine has not answered for 0 s; see"):
        await push(client, artifact, None)


async def test_a_push_of_what_is_being_activated_follows_it(tmp_path: Path, credentials: Path) -> None:
    artifact = slow_artifact(tmp_path / "artifact", credentials, start_seconds=1.0)
    with agent_process(tmp_path / "store", credentials) as (_, port):
        address = parse_address(f"localhost:{port}")
        async with DeviceClient(address, credentials) as first, DeviceClient(address, credentials) as second:
            staged = await push(first, artifact, None, activate=False)
            await first.activate(bytes.fromhex(staged.release))
            result = await push(second, artifact, None)
    assert result.verdict is not None
    assert result.verdict.committed


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_starved_board_is_not_a_broken_link(tmp_path: Path, credentials: Path) -> None:
    """A board that gets no processor for 50 s ends its benchmark late, and not with a broken link."""
    artifact = slow_artifact(tmp_path / "artifact", credentials, token_seconds=0.5)
    heard: list[EdgewrightError] = []
    with agent_process(tmp_path / "store", credentials) as (process, port):
        address = parse_address(f"localhost:{port}")
        async with DeviceClient(address, credentials, on_wait=heard.append) as client:
            await push(client, artifact, None)
            begun = asyncio.Event()
            running = asyncio.create_task(
                run_on_board(client, BenchmarkPlan(4, 4, 20, 1), lambda *step: begun.set())
            )
            await begun.wait()
            os.kill(process.pid, signal.SIGSTOP)
            await asyncio.sleep(50)
            os.kill(process.pid, signal.SIGCONT)
            assert (await running).prompts == 4
    assert heard == []

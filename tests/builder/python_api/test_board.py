"""A board through the public interface, sync and async, against a device in memory."""

from __future__ import annotations

import asyncio
import json
import math
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

import edgewright as ew
from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright_builder.python_api.results.telemetry import snapshot_of
from edgewright_builder.show.document import document
from tests.support.built_artifacts import KEY, make_artifact
from tests.support.device_simulator import Board, simulated_device, simulated_in_thread


@pytest.fixture
def device() -> Board:
    return Board(tokens=["Hel", "lo", "!"], snapshots=[snapshot()])


@pytest.fixture
def host(device: Board) -> Iterator[str]:
    with simulated_in_thread(device) as address:
        yield str(address)


@pytest.fixture
def board(host: str) -> Iterator[ew.Board]:
    with ew.Board(host, insecure=True) as board:
        yield board


@pytest.fixture
def artifact(tmp_path: Path) -> ew.Artifact:
    return make_artifact(tmp_path / "artifact", {"engine/model.bin": bytes(3 << 20)}, KEY)


def snapshot() -> telemetry.Snapshot:
    return telemetry.Snapshot(
        memory=telemetry.Memory(total_bytes=8 << 30, available_bytes=5 << 30, budget_bytes=4 << 30),
        energy=[
            telemetry.EnergyRail(
                name="VDD_IN", source="ina3221", whole_module=True, joules=12.5, watts=4.25, samples=9
            )
        ],
    )


def test_the_readme_s_lines_work(board: ew.Board, artifact: ew.Artifact) -> None:
    assert board.push(artifact).committed
    status = board.status()
    assert status.active is not None
    assert "  budget: 5.00 GiB" in str(status).splitlines()
    assert "".join(board.generate("Why?")) == "Hello!"
    energy = board.telemetry().energy
    assert energy.whole_module is not None
    assert (energy.whole_module.joules, energy[0].watts) == (12.5, 4.25)
    assert "12.5 J, 4.25 W" in str(energy)


async def test_a_board_answers_the_same_from_asyncio(device: Board, artifact: ew.Artifact) -> None:
    async with simulated_device(device) as address, ew.AsyncBoard(str(address), insecure=True) as board:
        assert (await board.push(artifact)).committed
        assert "".join([piece async for piece in board.generate("Why?")]) == "Hello!"
        assert (await board.generate("Why?").result()).generated_tokens == 3
        assert [each.host async for each in board.watch_telemetry(0.1)] == [str(address)]


async def test_a_board_works_where_a_loop_runs_already_as_in_a_notebook(host: str) -> None:
    with ew.Board(host, insecure=True) as board:
        assert board.status().hostname == "board-7"


def test_progress_is_told_in_the_thread_that_asked(board: ew.Board, artifact: ew.Artifact) -> None:
    threads: set[str] = set()
    words: list[ew.Progress] = []

    def listen(progress: ew.Progress) -> None:
        threads.add(threading.current_thread().name)
        words.append(progress)

    board.push(artifact, on_progress=listen)
    assert threads == {threading.current_thread().name}
    assert str(words[0]) == "push: full: 3.0 MiB to send (1 of 1 files)"
    assert any(str(word).startswith("sent: 3.0 MiB of 3.0 MiB, at ") for word in words)


def test_what_a_listener_raises_ends_the_call(board: ew.Board, artifact: ew.Artifact) -> None:
    def stop(progress: ew.Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        board.push(artifact, on_progress=stop)
    assert board.status().hostname == "board-7"  # the board can be used on


def test_leaving_a_generation_frees_the_engine(device: Board, board: ew.Board) -> None:
    device.tokens = ["a"] * 1_000_000
    for _ in board.generate("x"):
        break
    for _ in range(1500):
        if device.cancelled:
            break
        threading.Event().wait(0.02)
    assert device.cancelled


def test_figures_of_a_generation_come_with_its_end(board: ew.Board) -> None:
    generation = board.generate([{"role": "system", "content": "Be brief."}, ew.ChatTurn("user", "Why?")])
    with pytest.raises(ew.InputError, match="has not ended"):
        _ = generation.completion
    completion = generation.result()
    assert (completion.text, completion.finish_reason, completion.generated_tokens) == ("Hello!", "stop", 3)
    assert generation.completion == completion


def test_a_release_that_is_not_kept_is_an_error_that_holds_the_verdict(
    device: Board, board: ew.Board, artifact: ew.Artifact
) -> None:
    probe = deployment.ProbeResult(name="golden_prompt", required=True, detail="expected [1], got [2]")
    device.verdict = [
        deployment.WatchDeploymentResponse(
            phase=deployment.PHASE_IDLE, active_release=b"\2" * 32, message="probe golden_prompt failed",
            outcome=deployment.OUTCOME_ROLLED_BACK, probes=[probe],
        )
    ]  # fmt: skip
    with pytest.raises(ew.NotCommittedError, match="did not keep the release") as caught:
        board.push(artifact)
    result = caught.value.result
    assert isinstance(result, ew.PushResult)
    assert result.verdict is not None
    assert result.verdict.probes[0].detail == "expected [1], got [2]"


def test_a_board_s_no_is_a_refused_error(device: Board, board: ew.Board) -> None:
    device.refuse = {"Generate": [(grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_EXCEEDED")]}
    with pytest.raises(ew.InputError, match="Generate is refused"):
        board.generate("x").result()
    with pytest.raises(ew.RefusedError, match="nothing to go back to"):
        board.rollback()


def test_a_closed_board_says_so(host: str) -> None:
    board = ew.Board(host, insecure=True)
    board.close()
    board.close()
    with pytest.raises(ew.InputError, match=rf"The board {host} is closed; open it again with"):
        board.status()
    assert repr(board) == f"Board('{host}', closed)"


def test_releases_are_a_sequence_that_knows_which_is_active(device: Board, board: ew.Board) -> None:
    device.staged, device.active = {b"\3" * 32, b"\4" * 32}, b"\4" * 32
    releases = board.releases()
    assert (len(releases), releases[0].release, releases.named("0404").state) == (2, "03" * 32, "active")
    assert releases.active is not None
    assert releases.active.release == "04" * 32
    with pytest.raises(ew.InputError, match="0 releases whose digest begins with 05"):
        releases.named("05")
    assert board.delete("0303").freed_bytes == 700


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ew.Board(7443), "For the board's address int 7443 was given; expected text"),  # type: ignore[arg-type]
        (lambda: ew.Board("board"), "not of the form HOST:PORT, as in"),
        (lambda: ew.Board("board:1", insecure=True), "not on this machine, so it needs TLS"),
        (lambda: ew.Board("board:1", credentials=3), "For credentials int 3 was given; expected a path"),  # type: ignore[arg-type]
        (lambda: ew.check("llama-3.2-3b", device=5), "For the device int 5 was given"),  # type: ignore[arg-type]
        (lambda: ew.check("llama-3.2-3b", device="this-host", budget=0), "For the budget int 0 was given"),
        (lambda: ew.check(3, device="this-host"), "For the model int was given"),  # type: ignore[arg-type]
        (lambda: ew.Credentials.create("keys", "board-7.local"), "The hosts are a list of names"),
        (lambda: ew.open_run("no-such-run"), "no-such-run is not a run: it has no recipe.yaml"),
        (lambda: ew.check("a" * 5000, device="this-host"), "For the model str 'aaaa"),
        (
            lambda: ew.check("a\0b", device="this-host"),
            "For the model str 'a\\x00b' was given; expected a path",
        ),
        (
            lambda: ew.check("llama-3.2-3b", device="a" * 5000 + ".yaml"),
            "expected a path that is not so long",
        ),
        (lambda: ew.open_run("a\0b"), "For the run str 'a\\x00b' was given"),
        (lambda: ew.build("a" * 5000, device="this-host"), "For the recipe str 'aaaa"),
        (lambda: ew.Credentials.create("a" * 5000), "For the credentials folder str 'aaaa"),
        (lambda: ew.check("llama-3.2-3b", device="this-host", budget=2**70), "For the budget int 11805"),
        (lambda: ew.open_artifact("a\0b"), "For the artifact str 'a\\x00b' was given"),
        (lambda: ew.Fleet("a\0b"), "For the fleet file str 'a\\x00b' was given"),
        (lambda: ew.open_artifact(3), "For the artifact int 3 was given"),  # type: ignore[arg-type]
    ],
)
def test_what_is_given_wrongly_is_named(call: object, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEWRIGHT_CREDENTIALS", raising=False)
    with pytest.raises(ew.InputError) as caught:
        call()  # type: ignore[operator]
    assert sentence in str(caught.value)


def test_a_home_folder_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_artifact(tmp_path / "artifact", {"engine/model.bin": b"x"}, KEY)
    ew.Credentials.create("~/keys")
    assert ew.open_artifact("~/artifact").folder == tmp_path / "artifact"
    for credentials in ("~/keys", None):
        monkeypatch.setenv("EDGEWRIGHT_CREDENTIALS", "~/keys")
        assert ew.Board("board:1", credentials=credentials).credentials == tmp_path / "keys"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_tokens": -1}, "The board can't be asked for a generation"),
        ({"temperature": "hot"}, "The board can't be asked for a generation"),
        ({"stop": [3]}, "The board can't be asked for a generation"),
    ],
)
def test_a_sampling_value_of_a_wrong_type_is_named(
    board: ew.Board, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ew.InputError, match=sentence):
        board.generate("x", **options)  # type: ignore[arg-type]
    with pytest.raises(ew.InputError, match="For the prompt int 3 was given"):
        board.generate(3)  # type: ignore[arg-type]
    with pytest.raises(ew.InputError, match="For a message"):
        board.generate([{"text": "x"}])


@pytest.mark.parametrize(
    "call",
    [
        lambda board: board.generate("caf\udce9"),
        lambda board: board.generate([{"role": "user", "content": "caf\udce9"}]),
        lambda board: board.generate("caf\udce9", chat=False),
        lambda board: board.score([("caf\udce9", [" x"])]),
        lambda board: board.score([(3, [" x"])]),
        lambda board: board.scrub(bytes_per_second_max=2**64),
        lambda board: board.scrub(bytes_per_second_max=-1),
        lambda board: next(board.recorded_telemetry(2**70)),
        lambda board: next(board.recorded_telemetry(-1)),
        lambda board: next(board.watch_telemetry("often")),
        lambda board: board.bench(input_tokens=2**40),
    ],
)
def test_what_the_wire_can_t_carry_is_refused_before_it_is_sent(
    board: ew.Board, call: Callable[[ew.Board], object]
) -> None:
    with pytest.raises(ew.InputError, match="The board can't be asked for"):
        call(board)
    assert board.status().hostname == "board-7"


@pytest.mark.parametrize("name", ["prompts", "concurrency", "warmup", "repeats", "host_prompts"])
@pytest.mark.parametrize("value", [-1, "two", True, 1.5])
def test_a_benchmark_takes_whole_numbers(board: ew.Board, name: str, value: object) -> None:
    with pytest.raises(
        ew.InputError, match=rf"^{name} is {value!r}; give a whole number of at least [01]\.$"
    ):
        board.bench(**{name: value})  # type: ignore[arg-type]


async def test_an_async_board_belongs_to_one_loop(device: Board) -> None:
    async with simulated_device(device) as address:
        board = ew.AsyncBoard(str(address), insecure=True)
        await board.status()

        def elsewhere() -> str:
            with pytest.raises(ew.InputError) as caught:
                asyncio.run(board.status())
            return str(caught.value)

        assert "belongs to another event loop" in await asyncio.to_thread(elsewhere)
        await board.close()


def test_a_rollback_while_a_change_is_under_way_waits_for_its_end(device: Board, board: ew.Board) -> None:
    device.refuse = {"RollBack": [(grpc.StatusCode.ABORTED, "BUSY")]}
    device.active = b"\1" * 32
    device.verdict = [
        deployment.WatchDeploymentResponse(
            phase=deployment.PHASE_IDLE, active_release=b"\2" * 32, outcome=deployment.OUTCOME_ROLLED_BACK
        )
    ]
    assert (
        board.rollback().active_release == "02" * 32
    )  # it went back by itself; once more would be one too many
    assert device.calls.count("RollBack") == 1


def test_numbers_that_are_none_are_null_and_control_characters_are_not_passed_on(device: Board) -> None:
    device.snapshots[0].temperatures.append(telemetry.Temperature(zone="\x1b[2Jtj", celsius=math.nan))
    found = snapshot_of(device.snapshots[0])  # `Board.telemetry` refuses a NaN: no agent sends one
    assert found.temperatures[0].zone == "\ufffd[2Jtj"
    assert json.dumps(document(found), allow_nan=False)
    assert "\x1b" not in str(found)


def test_every_result_of_a_board_is_drawn_for_a_notebook(board: ew.Board, artifact: ew.Artifact) -> None:
    results = [
        board.push(artifact),
        board.status(),
        board.releases(),
        board.telemetry(),
        board.gc(),
        board.scrub(),
    ]
    for result in results:
        html = result._repr_html_()  # type: ignore[attr-defined]
        assert html.startswith('<div class="edgewright">')
        assert html.endswith("</div>")
    assert "<svg" in board.telemetry().energy._repr_html_()  # type: ignore[attr-defined]
    assert "<script" not in board.telemetry()._repr_html_()  # type: ignore[attr-defined]


def test_text_of_a_board_is_escaped_in_a_notebook(device: Board, board: ew.Board) -> None:
    device.snapshots[0].energy[0].name = "<img src=x onerror=alert(1)>"
    html = board.telemetry()._repr_html_()  # type: ignore[attr-defined]
    assert "<img" not in html


def test_many_threads_may_use_one_board(board: ew.Board) -> None:
    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.append(board.status().hostname)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == ["board-7"] * 8


def test_a_child_process_after_a_fork_opens_boards_of_its_own(host: str) -> None:
    with ew.Board(host, insecure=True) as board:
        board.status()
        child = os.fork()
        if child == 0:  # gRPC itself can't be used here; the SDK must not wait for a thread that is not there
            from edgewright_builder.python_api.loop import SHARED

            async def answer() -> int:
                return 7

            os._exit(SHARED.run(answer()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

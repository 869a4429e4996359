from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from typer.testing import CliRunner

from edgewright.errors import BusyError, InputError, RefusedError
from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.cli.main import app
from edgewright_builder.fleet.journal import held
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.sdk.results.board import status_of
from edgewright_builder.sdk.results.telemetry import TelemetrySnapshot, snapshot_of
from edgewright_builder.show.top import History, render
from tests.support.built_artifacts import make_artifact
from tests.support.device_simulator import Board, simulated_in_thread

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "cache"))  # a push keeps what it has sent


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def host(board: Board) -> Iterator[str]:
    with simulated_in_thread(board) as address:
        yield str(address)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return make_artifact(tmp_path / "artifact", {"engine/model.bin": bytes(3 * 1024 * 1024)}, KEY)


def invoke(*arguments: object, **environment: str) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def output(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.exception
    return str(result.stdout)


def snapshot() -> telemetry.Snapshot:
    times = telemetry.Distribution(count=4, mean=0.02, p50=0.02, p90=0.03, p99=0.03, max=0.031)
    return telemetry.Snapshot(
        active_release=b"\1" * 32,
        serving=telemetry.Serving(requests=4, generated_tokens=64, time_to_first_token_seconds=times),
        memory=telemetry.Memory(total_bytes=8 << 30, available_bytes=5 << 30, budget_bytes=4 << 30),
        sensors=[telemetry.Sensor(name="ina3221", detail="no such chip")],
    )


def test_push_says_what_will_travel_and_ends_with_the_verdict(host: str, artifact: Artifact) -> None:
    lines = output("push", artifact.folder, host, "--insecure").splitlines()
    assert lines[0] == f"tiny 1.0 ({artifact.digest[:12]})"
    assert lines[1] == "  full: 3.0 MiB to send (1 of 1 files)"
    assert lines[-1] == "committed: it is active"
    assert any(line.startswith("  sent 100 % at ") for line in lines)
    assert "\t".join(["ready", "required", "passed", "in 0.1 s"]) in lines


def test_a_second_push_says_that_nothing_travels(host: str, artifact: Artifact) -> None:
    output("push", artifact.folder, host, "--insecure")
    assert "nothing to send: the board has all 3.0 MiB of it" in output(
        "push", artifact.folder, host, "--insecure"
    )


def test_push_in_json_is_one_document_also_in_the_file(host: str, artifact: Artifact, tmp_path: Path) -> None:
    saved = tmp_path / "device" / "push.json"
    text = output("push", artifact.folder, host, "--insecure", "--json", "--save", saved)
    document = json.loads(text)
    assert document == json.loads(saved.read_text())
    assert document["release"] == artifact.digest
    assert document["sent_bytes"] == 3 * 1024 * 1024
    assert document["verdict"]["outcome"] == "committed"


def test_push_of_a_release_that_rolls_back_is_refused_with_the_reason(
    board: Board, host: str, artifact: Artifact
) -> None:
    board.verdict = [
        deployment.WatchDeploymentResponse(
            phase=deployment.PHASE_IDLE, active_release=b"\2" * 32, message="probe peak_memory failed",
            outcome=deployment.OUTCOME_ROLLED_BACK,
        )
    ]  # fmt: skip
    result = invoke("push", artifact.folder, host, "--insecure")
    assert isinstance(result.exception, RefusedError)
    assert "did not keep the release (probe peak_memory failed); it serves 020202020202" in str(
        result.exception
    )


def test_push_without_activation_stages_only(board: Board, host: str, artifact: Artifact) -> None:
    assert output("push", artifact.folder, host, "--insecure", "--no-activate").endswith(
        "staged; not activated\n"
    )
    assert "ActivateRelease" not in board.calls


def test_an_artifact_signed_by_another_key_than_the_credentials_is_not_sent(
    board: Board, artifact: Artifact, tmp_path: Path
) -> None:
    output("keys", "create", tmp_path / "keys")
    result = invoke("push", artifact.folder, "localhost:1", "--credentials", tmp_path / "keys")
    assert isinstance(result.exception, RefusedError)
    assert "trusted here" in str(result.exception)


def test_a_command_without_credentials_says_what_to_give() -> None:
    result = invoke("status", "board-7:7443", EDGEWRIGHT_CREDENTIALS="")
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == (
        "board-7:7443 needs credentials: give --credentials DIR or EDGEWRIGHT_CREDENTIALS."
    )


def test_credentials_come_from_the_environment_too(tmp_path: Path) -> None:
    result = invoke("status", "board-7:7443", EDGEWRIGHT_CREDENTIALS=str(tmp_path / "nowhere"))
    assert "nowhere/ca.pem can't be read" in str(result.exception)


def test_status_names_board_budget_and_engines(host: str) -> None:
    text = output("status", host, "--insecure")
    assert text.startswith("board-7 (this-host)\n")
    assert "  budget: 5.00 GiB\n" in text
    assert "  engine fake: 1\n" in text
    assert "  active: none\n" in text
    assert json.loads(output("status", host, "--insecure", "--json"))["budget_bytes"] == 5 << 30


def test_releases_are_listed(board: Board, host: str) -> None:
    board.staged = {b"\3" * 32}
    assert output("releases", host, "--insecure").splitlines()[1].startswith("030303030303\ttiny\t")
    assert json.loads(output("releases", host, "--insecure", "--json"))["releases"][0]["name"] == "tiny"


def test_digests_in_json_are_hex_as_they_are_everywhere_else(board: Board, host: str) -> None:
    board.staged, board.active, board.snapshots, board.corrupt = (
        {b"\3" * 32},
        b"\3" * 32,
        [snapshot()] * 2,
        True,
    )
    released = json.loads(output("releases", host, "--insecure", "--json"))["releases"][0]
    assert released["release"] == "03" * 32
    assert json.loads(output("status", host, "--insecure", "--json"))["active_release"] == "03" * 32
    for more in ((), ("--follow",)):
        line = output("telemetry", host, "--insecure", "--json", *more).replace("\n", "")
        assert json.JSONDecoder().raw_decode(line)[0]["active_release"] == "01" * 32
    scrubbed = json.loads(invoke("scrub", host, "--insecure", "--json").stdout)
    assert scrubbed["corrupt_blobs"] == ["05" * 32]


def test_a_release_is_deleted_by_the_beginning_of_its_digest_and_the_rest_is_listed(
    board: Board, host: str
) -> None:
    board.staged = {b"\3" * 32, b"\4" * 32}
    lines = output("releases", host, "--insecure", "--delete", "0303").splitlines()
    assert lines[0].startswith("deleted 030303030303 (tiny ")
    assert [line[:4] for line in lines[2:]] == ["0404"]
    document = json.loads(output("releases", host, "--insecure", "--delete", "0404", "--json"))
    (deleted,) = document["deleted_releases"]
    assert (deleted["release"], deleted["freed_bytes"], document["releases"]) == ("04" * 32, 700, [])


def test_a_beginning_that_names_no_release_or_two_deletes_none(board: Board, host: str) -> None:
    board.staged = {b"\3" * 32, b"\3" * 31 + b"\4"}
    for digest, count in (("0303", 2), ("05", 0)):
        result = invoke("releases", host, "--insecure", "--delete", digest)
        assert isinstance(result.exception, InputError)
        assert f"has {count} releases whose digest begins with {digest}" in str(result.exception)
    assert "DeleteRelease" not in board.calls


def test_gc_of_releases_deletes_all_but_those_in_use_and_their_bases_adapters_first(
    board: Board, host: str
) -> None:
    names = (
        "active",
        "base of active",
        "previous",
        "candidate",
        "old base",
        "old adapter",
        "staged",
        "denied",
    )
    digest = {name: bytes([number]) * 32 for number, name in enumerate(names, 1)}
    state = {
        name: deployment.ReleaseState.Value(f"RELEASE_STATE_{name.upper()}")
        for name in ("active", "previous", "candidate", "denied")
    }
    base = {"active": digest["base of active"], "old adapter": digest["old base"]}
    board.releases = [
        deployment.Release(
            name=name, release=digest[name], base_release=base.get(name, b""),
            state=state.get(name, deployment.RELEASE_STATE_STAGED),
        )
        for name in names
    ]  # fmt: skip
    going = ["old adapter", "old base", "staged", "denied"]
    lines = output("gc", host, "--insecure", "--releases", "--dry-run").splitlines()
    assert [line.split("(")[1].rstrip(" )") for line in lines[:-1]] == going
    assert "DeleteRelease" not in board.calls
    output("gc", host, "--insecure", "--releases")
    assert board.deleted == [digest[name] for name in going]


def test_rollback_without_a_previous_release_is_refused(host: str) -> None:
    result = invoke("rollback", host, "--insecure")
    assert isinstance(result.exception, RefusedError)
    assert str(result.exception) == "nothing to go back to"


def test_generate_streams_the_text_to_stdout_and_figures_to_stderr(board: Board, host: str) -> None:
    board.tokens = ["Hello", " [bold]", "world"]
    result = invoke("generate", host, "Say hello", "--insecure")
    assert result.stdout == "Hello [bold]world\n"
    assert result.stderr == "3 + 3 tokens, stop · TTFT 10 ms\n"


def test_generate_in_json_holds_text_and_counts(board: Board, host: str) -> None:
    board.tokens = ["a", "b"]
    document = json.loads(output("generate", host, "x", "--raw", "--insecure", "--json"))
    assert (document["text"], document["generated_tokens"]) == ("ab", 2)


def test_telemetry_without_a_sensor_says_so_and_gives_no_number(board: Board, host: str) -> None:
    board.snapshots = [snapshot()]
    lines = output("telemetry", host, "--insecure").splitlines()
    assert "  energy: no energy sensor" in lines
    assert "  no ina3221: no such chip" in lines
    assert "  TTFT: p50 20.0 ms, p90 30.0 ms, p99 30.0 ms, max 31.0 ms" in lines
    assert not any("watt" in line.lower() or "engine memory" in line or "TPOT" in line for line in lines)


def test_following_telemetry_in_json_is_a_document_a_line(board: Board, host: str) -> None:
    board.snapshots = [snapshot(), snapshot()]
    lines = output("telemetry", host, "--insecure", "--follow", "--json").splitlines()
    assert [json.loads(line)["serving"]["requests"] for line in lines] == [4, 4]


def test_eval_asks_the_board_for_every_choice(board: Board, host: str, tmp_path: Path) -> None:
    rows = [
        {"question": "Sky?", "choices": ["blue", "a very long answer"], "answer": 0},
        {"question": "Sea?", "choices": ["an even longer answer", "wet"], "answer": 0},
    ]
    quiz = tmp_path / "quiz.jsonl"
    quiz.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = json.loads(output("eval", host, "--insecure", "--tasks", quiz, "--json"))["results"]
    # Every choice costs one nat a character here, blanks included: per byte, the longer one is likelier.
    assert found["outcomes"] == [False, True]
    assert (found["task"], found["accuracy"], found["rows"], found["model"]) == ("quiz", 0.5, 2, "served")


def test_eval_of_a_board_that_serves_nothing_is_refused_before_rows_are_fetched(
    board: Board, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(name: str) -> None:
        raise AssertionError(f"{name} was asked of the hub")

    monkeypatch.setattr("edgewright_builder.tasks.loading.harness_questions", never)
    board.refuse["Score"] = [(grpc.StatusCode.FAILED_PRECONDITION, "REASON_NO_ACTIVE_RELEASE")]
    result = invoke("eval", host, "--insecure")
    assert isinstance(result.exception, RefusedError)
    assert "Score is refused" in str(result.exception)


def test_a_refused_call_ends_with_the_boards_own_sentence(board: Board, host: str) -> None:
    board.refuse = {"Generate": [(grpc.StatusCode.FAILED_PRECONDITION, "NO_ACTIVE_RELEASE")]}
    result = invoke("generate", host, "x", "--insecure")
    assert isinstance(result.exception, RefusedError)
    assert str(result.exception) == "Generate is refused by the simulator"


def test_the_commands_load_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "peft", "optuna", "onnx", "onnxruntime", "numpy"]
    code = (
        "import sys; from edgewright_builder.cli.group import COMMANDS, load_command;"
        "list(map(load_command, COMMANDS));"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def fleet_file(folder: Path, *hosts: str) -> Path:
    path = folder / "fleet.yaml"
    path.write_text("name: test\ndevices: [" + ", ".join(hosts) + "]\n")
    return path


def test_push_to_a_fleet_says_what_became_of_each_device(
    host: str, artifact: Artifact, tmp_path: Path
) -> None:
    fleet = fleet_file(tmp_path, host)
    text = output("push", artifact.folder, "--fleet", fleet, "--insecure")
    assert "wave 1 of 1: 1 device" in text
    assert f"{host}  committed" in text
    assert text.endswith("1 committed\n")
    assert len(list(tmp_path.glob("fleet-*.journal.jsonl"))) == 1


def test_push_to_a_fleet_that_is_not_all_updated_is_refused(
    host: str, board: Board, artifact: Artifact, tmp_path: Path
) -> None:
    board.verdict = [
        deployment.WatchDeploymentResponse(
            phase=deployment.PHASE_IDLE, outcome=deployment.OUTCOME_ROLLED_BACK, message="too slow"
        )
    ]
    fleet = fleet_file(tmp_path, host, "127.0.0.1:1")
    result = invoke("push", artifact.folder, "--fleet", fleet, "--insecure", "--json")
    assert isinstance(result.exception, RefusedError)
    assert "0 of 2 devices serve the release; stopped: 1 of 1 devices" in str(result.exception)
    document = json.loads(result.stdout)
    assert [device["outcome"] for device in document["devices"]] == ["rolled back"]
    assert document["not_begun"] == ["127.0.0.1:1"]


def test_a_second_rollout_with_the_journal_of_one_under_way_is_told_to_wait(
    host: str, board: Board, artifact: Artifact, tmp_path: Path
) -> None:
    journal = tmp_path / "night" / "journal.jsonl"
    command = ("push", artifact.folder, "--fleet", fleet_file(tmp_path, host), "--insecure")
    with held(journal):
        result = invoke(*command, "--journal", journal)
        assert isinstance(result.exception, BusyError)
        assert f"Another rollout is writing {journal}" in str(result.exception)
        assert board.calls == []
    output(*command, "--journal", journal)


def test_a_file_named_as_the_journal_by_mistake_keeps_its_last_line(
    host: str, artifact: Artifact, tmp_path: Path
) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(f"name: lab\ndevices:\n  - board-1.local:7443\n  - {host}")
    before = fleet.read_text()
    result = invoke("push", artifact.folder, "--fleet", fleet, "--insecure", "--journal", fleet)
    assert isinstance(result.exception, InputError)
    assert "is not the journal of a rollout" in str(result.exception)
    assert fleet.read_text() == before


def test_a_fleet_that_was_only_staged_is_activated_by_a_later_push(
    host: str, board: Board, artifact: Artifact, tmp_path: Path
) -> None:
    command = ("push", artifact.folder, "--fleet", fleet_file(tmp_path, host), "--insecure")
    assert output(*command, "--no-activate").endswith("1 staged\n")
    assert "ActivateRelease" not in board.calls
    assert output(*command).endswith("1 committed\n")
    assert board.active == bytes.fromhex(artifact.digest)


@pytest.mark.parametrize("others", [(), ("127.0.0.1:1",)], ids=["complete", "incomplete"])
def test_a_release_pushed_again_after_another_serves_again(
    host: str, board: Board, artifact: Artifact, tmp_path: Path, others: tuple[str, ...]
) -> None:
    fleet, options = fleet_file(tmp_path, host, *others), ("--insecure", "--wave", "100%")
    newer = make_artifact(tmp_path / "newer", {"engine/model.bin": b"newer"}, KEY)
    for made in (artifact, newer, artifact):
        result = invoke("push", made.folder, "--fleet", fleet, *options)
        assert result.exit_code == 0 if not others else isinstance(result.exception, RefusedError)
        assert board.active == bytes.fromhex(made.digest)
    assert f"{host}: the journal calls it done, which no board confirms; begun again" in result.stdout


@pytest.mark.parametrize(
    ("options", "question"),
    [((), "GetDevice"), (("--no-activate",), "ListReleases")],
    ids=["active", "staged"],
)
def test_a_fleet_that_has_the_release_is_asked_and_not_disturbed(
    host: str, board: Board, artifact: Artifact, tmp_path: Path, options: tuple[str, ...], question: str
) -> None:
    command = ("push", artifact.folder, "--fleet", fleet_file(tmp_path, host), "--insecure", *options)
    output(*command)
    board.calls.clear()
    output(*command)
    assert board.calls == [question]


def test_a_staged_release_that_was_deleted_meanwhile_is_staged_again(
    host: str, board: Board, artifact: Artifact, tmp_path: Path
) -> None:
    fleet = fleet_file(tmp_path, host)
    command = ("push", artifact.folder, "--fleet", fleet, "--insecure", "--no-activate")
    output(*command)
    board.staged.clear()
    output(*command)
    assert board.staged == {bytes.fromhex(artifact.digest)}


def test_a_board_that_committed_and_is_gone_is_not_said_to_serve(
    board: Board, artifact: Artifact, tmp_path: Path
) -> None:
    with simulated_in_thread(board) as address:
        fleet = fleet_file(tmp_path, str(address))
        output("push", artifact.folder, "--fleet", fleet, "--insecure")
    result = invoke("push", artifact.folder, "--fleet", fleet, "--insecure", "--json")
    assert isinstance(result.exception, RefusedError)
    assert [device["outcome"] for device in json.loads(result.stdout)["devices"]] == ["unreachable"]


def test_after_a_rotation_one_board_and_a_fleet_are_sent_what_the_old_key_signed(
    host: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    output("keys", "create", keys)
    old = load_signing_key(keys / "release.key")
    made = make_artifact(tmp_path / "old", {"engine/model.bin": bytes(1024)}, old)
    output("keys", "rotate", keys)
    options = ("--insecure", "--credentials", keys)
    assert "committed" in output("push", made.folder, "--fleet", fleet_file(tmp_path, host), *options)
    assert "committed" in output("push", made.folder, host, *options)


def test_a_fleets_own_credentials_give_way_to_the_command_line_and_not_to_the_environment(
    host: str, tmp_path: Path
) -> None:
    keys, others = tmp_path / "keys", tmp_path / "others"
    for folder in (keys, others):
        output("keys", "create", folder)
    made = make_artifact(
        tmp_path / "made", {"engine/model.bin": bytes(1024)}, load_signing_key(keys / "release.key")
    )
    fleet = fleet_file(tmp_path, host)
    push = ("push", made.folder, "--fleet", fleet, "--insecure")
    assert isinstance(invoke(*push, EDGEWRIGHT_CREDENTIALS=str(others)).exception, RefusedError)
    fleet.write_text(fleet.read_text() + "credentials: keys\n")
    assert invoke(*push, EDGEWRIGHT_CREDENTIALS=str(others)).exit_code == 0
    refused = invoke(*push, "--credentials", others, EDGEWRIGHT_CREDENTIALS=str(keys))
    assert "trusted here" in str(refused.exception)


def test_push_needs_boards_from_one_place(host: str, artifact: Artifact, tmp_path: Path) -> None:
    for arguments in ([], [host, "--fleet", fleet_file(tmp_path, host)]):
        result = invoke("push", artifact.folder, *arguments, "--insecure")
        assert isinstance(result.exception, InputError)
        assert "either as HOST:PORT or with --fleet" in str(result.exception)


def test_gc_says_what_it_freed_and_what_it_would_free(host: str) -> None:
    assert output("gc", host, "--insecure") == "freed 2.0 KiB: 1 files, 2 unfinished uploads\n"
    assert output("gc", host, "--insecure", "--dry-run").startswith("would free 0 B: 1 files")


def test_a_scrub_that_finds_nothing_says_so(host: str) -> None:
    assert output("scrub", host, "--insecure").endswith(
        "2 files, 1.0 KiB read; all are what their digests say\n"
    )


def test_a_scrub_that_finds_damage_is_a_no(host: str, board: Board) -> None:
    board.corrupt = True
    result = invoke("scrub", host, "--insecure")
    assert isinstance(result.exception, RefusedError)
    assert "corrupt and in quarantine: 050505050505" in result.stdout


def test_recorded_telemetry_has_a_number_and_a_time_a_line(host: str, board: Board) -> None:
    board.snapshots = [snapshot()]
    line = output("telemetry", host, "--insecure", "--recorded-after", 0)
    assert line.startswith("1 1970-01-01 00:00:00Z · 4 requests")


def test_requests_that_are_in_flight_are_not_done(host: str, board: Board) -> None:
    in_flight = snapshot()
    in_flight.serving.requests_in_flight = 4
    board.snapshots = [in_flight]
    text = output("telemetry", host, "--insecure")
    assert "4 accepted, 4 in flight, 0 failed, 0 rejected" in text


def test_top_shows_one_board_on_one_screen(host: str, board: Board) -> None:
    board.snapshots = [snapshot()] * 3
    text = output("top", host, "--insecure", "--screens", 1)
    assert host in text
    assert "tokens/s" in text
    assert "engine" in text
    assert "no energy sensor" in text


def busy_snapshot(seconds: float, tokens: int) -> TelemetrySnapshot:
    module = telemetry.EnergyRail(name="A+B", whole_module=True, joules=90, watts=7.5)
    message = telemetry.Snapshot(
        monotonic_seconds=seconds, power_mode="25W", gpu_load_ratio=0.4,
        serving=telemetry.Serving(requests=2, requests_in_flight=1, generated_tokens=tokens),
        memory=telemetry.Memory(
            total_bytes=8 << 30, available_bytes=6 << 30, budget_bytes=400 << 20, engine_bytes=100 << 20,
            engine_peak_bytes=390 << 20,
        ),
        energy=[telemetry.EnergyRail(name="A", joules=30, watts=2.5), module, telemetry.EnergyRail(name="B")],
        temperatures=[telemetry.Temperature(zone="tj", celsius=61.5)],
        clocks=[
            *(telemetry.Clock(unit=f"cpu{core}", hertz=1_700_000_000) for core in range(4)),
            telemetry.Clock(unit="cpu4", hertz=700_000_000), telemetry.Clock(unit="gpu", hertz=900_000_000),
        ],
    )  # fmt: skip
    return snapshot_of(message)


def test_top_shows_rates_watts_heat_clocks_and_memory_against_the_budget() -> None:
    history = History()
    for second in range(3):
        history.add(busy_snapshot(float(second), 20 * second))
    device = deployment.GetDeviceResponse(profile_id="orin", phase=deployment.PHASE_PROBATION)
    screen = Console(width=160, record=True, file=io.StringIO())
    screen.print(render("b:1", status_of(device, []), busy_snapshot(2.0, 40), history))
    text = screen.export_text()
    assert "probation" in text
    assert "power mode 25W" in text
    assert "20.0 tokens/s" in text
    assert "25%  100.0 MiB" in text
    assert "98%  390.0 MiB" in text
    for line in (
        "sum of 2 7.50 W",
        "A 2.50 W",
        "B no answer",
        "tj 61.5 °C",
        "cpu0-3 1700 MHz",
        "cpu4 700 MHz",
    ):
        assert line in " ".join(text.split())
    assert text.index("sum of 2") < text.index("2.50 W")  # the whole board first
    assert list(history.watts) == [7.5] * 3


def test_a_counter_that_fell_belongs_to_another_release_and_gives_no_rate() -> None:
    history = History()
    for second, tokens in enumerate((100, 110, 0, 10)):
        history.add(busy_snapshot(float(second), tokens))
    assert list(history.tokens_per_second) == [10.0, 10.0]


def test_a_certificate_is_made_by_a_command_and_keys_made_anew_say_where_the_old_ones_are(
    tmp_path: Path,
) -> None:
    keys = tmp_path / "keys"
    output("keys", "create", keys)
    refused = invoke("keys", "create", keys, "--host", "board-7.local").exception
    assert f"`edgewright keys certificate {keys} --host NAME`" in str(refused)
    said = output("keys", "certificate", keys, "--host", "board-7.local")
    assert f"{keys}/agent-board-7.local.pem and agent-board-7.local.key written" in said
    assert "before" not in said
    said = output("keys", "certificate", keys, "--role", "deployer")
    (aside,) = keys.glob("replaced-*/")
    assert said.endswith(f"What was there before is in {aside}.\n")
    release_key = (keys / "release.key").read_bytes()
    said = output("keys", "create", keys, "--force")
    (aside,) = [path.parent for path in keys.glob("replaced-*/release.key")]
    assert said.endswith(f"What was there before is in {aside}.\n")
    assert (aside / "release.key").read_bytes() == release_key

"""`edgewright push` to many boards: waves, journals, and boards that changed meanwhile."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import edgewright as ew
from edgewright.errors import BusyError, InputError, RefusedError
from edgewright.v1 import deployment_pb2 as deployment
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.fleet.journal import held
from edgewright_builder.keys.key_files import load_signing_key
from tests.support.built_artifacts import KEY, make_artifact
from tests.support.commands import invoke, output
from tests.support.device_simulator import Board, simulated_in_thread

pytestmark = pytest.mark.usefixtures("prompt_retries")


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parallel", 0),
        ("parallel", 1.5),
        ("parallel", True),
        ("timeout_seconds", math.nan),
        ("timeout_seconds", "1"),
    ],
)
def test_a_rollout_from_python_takes_the_numbers_that_the_command_takes(
    host: str, artifact: Artifact, name: str, value: object
) -> None:
    with pytest.raises(InputError, match=rf"^{name} is {value!r}; give a number from 1 to "):
        ew.Fleet([host], insecure=True).push(artifact, **{name: value})  # type: ignore[arg-type]


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

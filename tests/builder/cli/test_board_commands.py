"""Commands that ask one board or change it: status, releases, gc, scrub, generate, eval."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from edgewright.errors import InputError, RefusedError
from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import telemetry_pb2 as telemetry
from tests.support.commands import invoke, output
from tests.support.device_simulator import Board


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
        [telemetry.Snapshot(active_release=b"\1" * 32)] * 2,
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


def test_eval_asks_the_board_for_every_choice(board: Board, host: str, tmp_path: Path) -> None:
    rows = [
        {"question": "Sky?", "choices": ["blue", "a very long answer"], "answer": 0},
        {"question": "Sea?", "choices": ["an even longer answer", "wet"], "answer": 0},
    ]
    quiz = tmp_path / "quiz.jsonl"
    quiz.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = json.loads(output("eval", host, "--insecure", "--tasks", quiz, "--json"))["results"]
    # Every choice costs one nat a character here, blanks included: per character, the longer one is likelier.
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

"""Words that a command line can't take are answered in one sentence, through the real programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest


def called(
    program: str, *words: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    path = Path(sys.executable).with_name(program)
    return subprocess.run(
        [str(path), *words], capture_output=True, text=True, check=False, env=os.environ | (environment or {}),
        encoding=None if environment is None else environment["PYTHONIOENCODING"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["push", "run", "board:1", "--probation", "nan"],
            "Invalid value for '--probation': 'nan', expected at most 86,400. See edgewright push --help.",
        ),
        (
            ["bench", "board:1", "--prompts", "many"],
            "Invalid value for '--prompts': 'many', expected an integer. See edgewright bench --help.",
        ),
        (["generat"], "No such command 'generat'. Did you mean 'generate'? See edgewright --help."),
        (["status"], "Missing argument 'HOST:PORT'. See edgewright status --help."),
        (
            ["export", "run"],
            "Missing option '--to'. Choose from: gguf, onnx, gptq. See edgewright export --help.",
        ),
    ],
    ids=["nan", "type", "command", "argument", "choice"],
)
def test_wrong_words_are_one_sentence_that_says_where_to_read_on(words: list[str], sentence: str) -> None:
    done = called("edgewright", *words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"edgewright: {sentence}\n")


@pytest.mark.parametrize("option", ["--probation", "--ready-timeout", "--scrub-days"])
@pytest.mark.parametrize("value", ["nan", "inf", "1e300", "-1"])
def test_an_agent_takes_times_that_end(tmp_path: Path, option: str, value: str) -> None:
    store = tmp_path / "store"
    done = called("edgewright-agent", "serve", "--profile", "this-host", "--store", str(store), option, value)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"edgewright-agent: Invalid value for '{option}': '{value}', expected at ")
    assert not store.exists()


def test_an_agent_s_budget_is_memory_that_the_board_has(tmp_path: Path) -> None:
    words = ["serve", "--profile", "raspberry-pi-5-8gb", "--store", str(tmp_path / "store"), "--insecure"]
    done = called("edgewright-agent", *words, "--budget", "9GiB")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "edgewright-agent: The budget is 9.00 GiB, and raspberry-pi-5-8gb has 8.00 GiB of memory; give less"
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("program", ["edgewright", "edgewright-agent"])
def test_without_words_the_help_is_shown(program: str) -> None:
    done = called(program)
    assert done.returncode == 2
    assert f"Usage: {program}" in done.stdout + done.stderr


LONG = "a" * 300  # file systems take 255 bytes
AGENT = ["serve", "--profile", "this-host", "--insecure", "--listen", "127.0.0.1:0", "--store"]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("edgewright", ["report", LONG]),
        ("edgewright", ["check", f"./{LONG}", "--device", "this-host"]),
        ("edgewright", ["profiles", "show", f"{LONG}.yaml"]),
        ("edgewright-agent", [*AGENT, LONG]),
        ("edgewright-agent", [*AGENT, "file/store"]),
    ],
)
def test_a_path_that_no_file_can_have_is_one_sentence(program: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = Path(sys.executable).with_name(program)
    done = subprocess.run(
        [str(path), *words], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60
    )
    assert done.returncode in (2, 3), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"{program}: ")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(
    "words",
    [
        ["check", "smollm2-135m", "--device", "jetson-orin-nano-8gb"],
        ["check", "smollm2-135m", "--device", "jetson-orin-nano-8gb", "--json"],
        ["plan", "smollm2-135m", "--device", "jetson-orin-nano-8gb", "--budget", "320MiB"],
        ["profiles", "show", "jetson-orin-nano-8gb"],
        ["profiles", "show", "jetson-orin-nano-8gb", "--json"],
        ["check", "--help"],
    ],
    ids=" ".join,
)
def test_a_terminal_that_lacks_characters_gets_escapes_and_scripts_get_json(
    words: list[str], encoding: str
) -> None:
    done = called("edgewright", *words, environment={"PYTHONIOENCODING": encoding, "LC_ALL": "C.UTF-8"})
    assert (done.returncode, done.stderr) == (0, "")
    if "--json" in words:
        assert json.loads(done.stdout)


@pytest.mark.parametrize(
    "words", [["edgewright-agent", "probe"], ["edgewright", "check", "--list"]], ids=" ".join
)
def test_an_output_that_takes_nothing_more_is_one_sentence(words: list[str]) -> None:
    command = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("path", ["unix:", "unix:.", "unix:/", "unix:run/.."])
def test_a_socket_for_openai_has_a_name(tmp_path: Path, path: str) -> None:
    words = [
        "serve",
        "--profile",
        "this-host",
        "--store",
        str(tmp_path / "store"),
        "--insecure",
        "--openai",
        path,
    ]
    done = called("edgewright-agent", *words)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert f"--openai is '{path}', which names no file; give unix:PATH" in done.stderr


def test_an_engine_gets_no_more_threads_than_a_machine_may_have(tmp_path: Path) -> None:
    done = called(
        "edgewright-agent", "serve", "--profile", "this-host", "--store", str(tmp_path), "--threads", "9999"
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "'--threads': '9999', expected at most 1,024" in done.stderr

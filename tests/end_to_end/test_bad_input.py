"""What is wrong is said in one sentence with an exit code, through the real command line, and nothing is half done."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.keys.key_files import load_signing_key
from tests.support.built_artifacts import make_artifact
from tests.support.tiny_build import command, edgewright, environment

INPUT, REFUSED, OUTSIDE, STOPPED = 2, 1, 3, 130
STOPPED_LINE = "edgewright: Stopped. Run the same command again with --resume to go on.\n"
MIB = 1024 * 1024


def assert_says(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """One line on standard error, with these parts, and the exit code."""
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr.startswith(("edgewright: ", "edgewright-agent: "))
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for part in parts:
        assert part in done.stderr


def variant(recipe: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The tiny build's recipe in another folder, changed in one thing."""
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    values["data"]["file"] = str(recipe.with_name("data.jsonl"))
    values["evaluate"]["tasks"] = [str(recipe.with_name("quiz.jsonl"))]
    change(values)
    folder.mkdir(exist_ok=True)
    (folder / "credentials").symlink_to(recipe.parent / "credentials")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def build(recipe: Path, run: Path, *more: str, **options: Any) -> subprocess.CompletedProcess[str]:
    words = command(recipe, run, *more)
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment(), **options)


def copied_model(recipe: Path, folder: Path) -> Path:
    return Path(shutil.copytree(recipe.parent / "model", folder / "model"))


# The recipe, the board and the budget


def test_an_unknown_device_is_answered_with_the_nearest(recipe: Path, tmp_path: Path) -> None:
    done = build(recipe, tmp_path / "run", "--device", "jetson-orin-nano-8g")
    assert_says(done, INPUT, "'jetson-orin-nano-8g'", "did you mean jetson-orin-nano-8gb")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda values: values["search"].update(trails=4), ["unknown key `search.trails`", "`trials`?"]),
        (lambda values: values["search"].update(trials="many"), ["`search.trials` is 'many'", "integer"]),
        (lambda values: values["student"].update(depth="half"), ["`student.depth` is 'half'", "'auto'"]),
        (lambda values: values["student"].update(drop_layers=[4]), ["layer 4", "layers 0 to 3"]),
        (lambda values: values.pop("teachers"), ["the key `teachers` is missing"]),
        (lambda values: values["evaluate"].update(tasks=["arc_hard"]), ["Unknown task 'arc_hard'"]),
    ],
    ids=["unknown-key", "type", "choice", "layer", "missing-key", "task"],
)
def test_a_wrong_recipe_names_the_key_and_the_value(
    recipe: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], parts: list[str]
) -> None:
    done = build(variant(recipe, tmp_path, change), tmp_path / "run")
    assert_says(done, INPUT, *parts)
    assert not (tmp_path / "run").exists()


def test_a_budget_that_nothing_meets_is_answered_with_the_smallest_that_does(
    recipe: Path, tmp_path: Path
) -> None:
    done = build(recipe, tmp_path / "run", "--budget", "1MiB")
    assert_says(done, INPUT, "budget of 1.0 MiB", "The smallest needs", "3 of 4 layers", "expected loss of")
    assert not (tmp_path / "run").exists()


# Models


def test_a_model_that_is_not_there_is_named(recipe: Path, tmp_path: Path) -> None:
    changed = variant(recipe, tmp_path, lambda values: values["student"].update(model="./nowhere"))
    assert_says(build(changed, tmp_path / "run"), INPUT, "No model at './nowhere'", "a folder, a .gguf file")
    assert not (tmp_path / "run").exists()


def test_truncated_weights_are_named_with_both_sizes(recipe: Path, tmp_path: Path) -> None:
    model = copied_model(recipe, tmp_path)
    weights = model / "model.safetensors"
    size_bytes = weights.stat().st_size
    os.truncate(weights, size_bytes - 100)
    changed = variant(recipe, tmp_path, lambda values: values["student"].update(model=str(model)))
    done = build(changed, tmp_path / "run")
    assert_says(done, INPUT, str(weights), f"{size_bytes - 100} bytes", f"its header says {size_bytes}")
    assert not (tmp_path / "run").exists()


def test_a_weight_file_that_the_index_lists_and_the_folder_lacks_is_named(
    recipe: Path, tmp_path: Path
) -> None:
    model = copied_model(recipe, tmp_path)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    changed = variant(recipe, tmp_path, lambda values: values["student"].update(model=str(model)))
    assert_says(build(changed, tmp_path / "run"), INPUT, "lacks model-00002-of-00002.safetensors")
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_gguf_is_named(recipe: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.gguf"
    weights.write_bytes(b"<!DOCTYPE html>")
    changed = variant(recipe, tmp_path, lambda values: values["student"].update(model=str(weights)))
    assert_says(build(changed, tmp_path / "run"), INPUT, f"{weights} is not a GGUF file")
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_said_to_be_shared_that_is_not_is_refused_with_the_first_token_that_differs(
    recipe: Path, tmp_path: Path
) -> None:
    teacher = copied_model(recipe, tmp_path)
    tokenizer = json.loads((teacher / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    names = {token_id: token for token, token_id in vocabulary.items()}
    vocabulary[names[40]], vocabulary[names[41]] = 41, 40
    (teacher / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    section = {"distillation": {"alignment": "shared"}, "teachers": {"knowledge": {"model": str(teacher)}}}
    changed = variant(recipe, tmp_path, lambda values: values.update(section))
    done = build(changed, tmp_path / "run")
    assert_says(done, INPUT, f"token 40 is {names[40]!r} in the student and {names[41]!r} in the teacher")
    assert not (tmp_path / "run").exists()


# Data


def test_data_of_which_nothing_is_left_is_refused_with_the_attrition(recipe: Path, tmp_path: Path) -> None:
    rows = [{"instruction": f"Count to {n}.", "output": "..."} for n in range(3)]
    questions = [{"question": row["instruction"], "choices": ["a", "b"], "answer": 0} for row in rows]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    evaluation = tmp_path / "benchmarks" / "counting" / "eval.jsonl"
    evaluation.parent.mkdir(parents=True)
    evaluation.write_text("".join(json.dumps(row) + "\n" for row in questions), encoding="utf-8")
    changed = variant(recipe, tmp_path, lambda values: values["data"].update(file="mine.jsonl"))
    done = build(changed, tmp_path / "run", "--benchmarks", str(evaluation.parent.parent))
    assert_says(done, INPUT, "mine.jsonl left no row, expected at least 1", "generated 3, contaminated 3")
    assert not (tmp_path / "run").exists()


def test_a_dialogue_that_the_chat_template_would_drop_is_refused_before_anything_is_written(
    recipe: Path, tmp_path: Path
) -> None:
    model = copied_model(recipe, tmp_path)
    template = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    (model / "chat_template.jinja").write_text(template, encoding="utf-8")
    row = {"instruction": "When?", "output": "At ten.", "system": "You answer for a museum."}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")

    def change(values: dict[str, Any]) -> None:
        values["data"].update(file="mine.jsonl")
        values["student"].update(model=str(model))

    done = build(variant(recipe, tmp_path, change), tmp_path / "run")
    assert_says(done, INPUT, "chat template leaves the system's 'You answer for a museum.' out")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("teacher", "parts"),
    [
        ({"endpoint": "http://localhost:1/v1", "api_key_env": "NO_SUCH_KEY"}, ["NO_SUCH_KEY", "is not set"]),
        (
            {"endpoint": "localhost:8000/v1"},
            ["`teachers.data.endpoint`", "'localhost:8000/v1'", "http://HOST:8000/v1"],
        ),
    ],
    ids=["key", "address"],
)
def test_an_endpoint_that_can_t_be_asked_is_refused_before_anything_is_written(
    recipe: Path, tmp_path: Path, teacher: dict[str, str], parts: list[str]
) -> None:
    def change(values: dict[str, Any]) -> None:
        del values["data"]["file"]
        values["teachers"]["data"] = {"model": "m", **teacher}

    assert_says(build(variant(recipe, tmp_path, change), tmp_path / "run"), INPUT, *parts)
    assert not (tmp_path / "run").exists()


# The agent


@contextlib.contextmanager
def agent(store: Path, credentials: Path, *more: str) -> Iterator[str]:
    """`edgewright-agent serve` over mutual TLS, and its address."""
    words = [
        str(Path(sys.executable).with_name("edgewright-agent")), "serve", "--profile", "this-host",
        "--store", str(store), "--listen", "127.0.0.1:0", "--trust", str(credentials / "release.pub"),
        "--tls-cert", str(credentials / "agent.pem"), "--tls-key", str(credentials / "agent.key"),
        "--tls-ca", str(credentials / "ca.pem"), *more,
    ]  # fmt: skip
    environment = {**os.environ, "EDGEWRIGHT_FAKE_ENGINE": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def credentials(recipe: Path) -> Path:
    return recipe.parent / "credentials"


@pytest.fixture
def artifact(credentials: Path, tmp_path: Path) -> Artifact:
    key = load_signing_key(credentials / "release.key")
    return make_artifact(tmp_path / "artifact", {"engine/model.bin": bytes(2 * MIB)}, key)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody who listens and is to be left alone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def test_a_port_in_use_is_named_and_no_store_is_made(tmp_path: Path, listener: socket.socket) -> None:
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    words = ["serve", "--profile", "this-host", "--store", str(tmp_path / "store"), "--listen", address]
    program = str(Path(sys.executable).with_name("edgewright-agent"))
    done = subprocess.run([program, *words, "--insecure"], capture_output=True, text=True, check=False)
    assert_says(done, INPUT, f"{address} can't be listened on: Address already in use", "--listen")
    assert not (tmp_path / "store").exists()


def test_an_agent_that_is_not_there_is_named(credentials: Path, listener: socket.socket) -> None:
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    done = edgewright("status", address, "--credentials", str(credentials))
    assert_says(done, OUTSIDE, f"No agent can be reached at {address} (Connection refused)", "check")


def test_credentials_of_another_authority_reach_nothing_on_either_side(
    credentials: Path, tmp_path: Path
) -> None:
    assert edgewright("keys", "create", str(tmp_path / "others")).returncode == 0
    mixed = tmp_path / "mixed"  # our authority, and a certificate that it never signed
    shutil.copytree(tmp_path / "others", mixed)
    shutil.copyfile(credentials / "ca.pem", mixed / "ca.pem")
    with agent(tmp_path / "store", credentials) as address:
        distrusted = edgewright("status", address, "--credentials", str(tmp_path / "others"))
        refused = edgewright("status", address, "--credentials", str(mixed))
    assert_says(distrusted, OUTSIDE, f"certificate of {address} is not trusted", "signed by our ca.pem")
    assert_says(refused, OUTSIDE, f"{address} refuses the client certificate", "credentials")


@pytest.mark.parametrize("name", ["engine/model.bin", "manifest.json"])
def test_an_altered_artifact_is_refused_before_anything_is_sent(
    artifact: Artifact, credentials: Path, listener: socket.socket, name: str
) -> None:
    altered = artifact.folder / name
    content = altered.read_bytes()
    altered.write_bytes(
        content.replace(b'"1.0"', b'"1.1"') if name == "manifest.json" else b"!" + content[1:]
    )
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    done = edgewright("push", str(artifact.folder), address, "--credentials", str(credentials))
    assert_says(
        done, INPUT, "manifest" if name == "manifest.json" else f"{altered} is not the file that was signed"
    )
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_full_store_refuses_the_release_and_keeps_nothing_of_it(
    artifact: Artifact, credentials: Path, tmp_path: Path
) -> None:
    with agent(tmp_path / "store", credentials, "--store-quota", "1MiB") as address:
        done = edgewright("push", str(artifact.folder), address, "--credentials", str(credentials))
        releases = edgewright("releases", address, "--credentials", str(credentials), "--json")
    assert_says(done, OUTSIDE, "The store is full", "needs 2.0 MiB", "1.0 MiB are free")
    assert json.loads(releases.stdout)["releases"] == []
    assert not [
        path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.stat().st_size > MIB
    ]


# The disk and Ctrl-C


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder on which the student's weights do not fit, and the largest file it takes: a file system of its own
    where we may mount one, a limit on files elsewhere."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield folder, 100_000
        return
    yield folder, resource.RLIM_INFINITY
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_the_build_at_a_stage_it_can_resume(
    recipe: Path, small_disk: tuple[Path, int]
) -> None:
    folder, file_bytes_max = small_disk

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, resource.RLIM_INFINITY))

    done = build(recipe, folder / "run", preexec_fn=limit_files)
    why = "No space left on device" if file_bytes_max == resource.RLIM_INFINITY else "File too large"
    assert_says(done, OUTSIDE, f"The disk refused to write: {why}", "Make room")
    assert (folder / "run" / "data" / "stage.json").exists()
    assert not (folder / "run" / "student" / "stage.json").exists()


def test_ctrl_c_stops_the_build_with_a_line_and_resume_goes_on(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = interrupted(command(recipe, run), run / "student" / "started")
    assert (first.returncode, first.stderr) == (STOPPED, STOPPED_LINE)
    assert (run / "data" / "stage.json").exists()
    assert not (run / "student" / "stage.json").exists()
    second = interrupted(command(recipe, run, "--resume"), run / "teacher" / "started")
    assert (second.returncode, second.stderr) == (STOPPED, STOPPED_LINE)
    assert "data: done before, kept" in second.stdout
    assert (run / "student" / "stage.json").exists()


def test_a_second_build_in_the_same_folder_is_refused_and_the_first_goes_on(
    recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def refused() -> None:
        assert_says(
            build(recipe, run, "--resume"), REFUSED, "Another build (process", str(run), "another --out"
        )

    first = interrupted(command(recipe, run), run / "student" / "started", meanwhile=refused)
    assert (first.returncode, first.stderr) == (STOPPED, STOPPED_LINE)


def interrupted(
    words: list[str], sign: Path, meanwhile: Callable[[], None] = lambda: None
) -> subprocess.CompletedProcess[str]:
    """Runs a command in a session of its own; Ctrl-C for all of it once the file `sign` is there.

    The command stands still while `meanwhile` is called.
    """
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not sign.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, f"{sign} never came"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            meanwhile()
        finally:
            os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    # Interrupted inside exec(), as dataclasses use it, Python ends by the signal itself: a shell says 130 of both.
    code = 128 - process.returncode if process.returncode < 0 else process.returncode
    return subprocess.CompletedProcess(words, code, stdout, stderr)

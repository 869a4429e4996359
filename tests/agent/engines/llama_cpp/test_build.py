"""Which llama-server is taken, and why one is not."""

from __future__ import annotations

import asyncio
import re
from importlib import metadata
from pathlib import Path

import pytest

from edgewright.errors import RefusedError
from edgewright_agent.engines import EngineLimits, GenerationRequest, start_engine
from edgewright_agent.engines.llama_cpp import build, launch
from tests.support.artifacts import make_artifact
from tests.support.engine_releases import Release, collect, tiny_llama_release
from tests.support.llama_server import write_server


def test_without_a_named_binary_the_package_s_server_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(build.COMMAND_VARIABLE, raising=False)
    info = launch.info()
    assert info.available
    assert info.version == metadata.version("xllamacpp").rpartition(".")[2]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"without": "--no-prefill-assistant", "version": "4100"},
            r"b4100\) is too old: it does not know --no-prefill",
        ),
        ({"without": "--ctx-size"}, "is no llama-server"),
        ({"help_text": " ".join(build.NEEDED_FLAGS)}, "too old: it can't listen on a Unix socket"),
    ],
)
def test_a_server_that_lacks_what_is_needed_is_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], complaint: str
) -> None:
    monkeypatch.setenv(build.COMMAND_VARIABLE, str(write_server(tmp_path, **options)))
    info = launch.info()
    assert not info.available
    assert "\n" not in info.detail
    assert re.search(complaint, info.detail), info.detail


def test_a_binary_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.COMMAND_VARIABLE, "/nowhere/llama-server")
    assert (
        "/nowhere/llama-server, which EDGEWRIGHT_LLAMA_SERVER names, is no executable" in launch.info().detail
    )


def test_a_program_that_fails_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "llama-server"
    script.write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv(build.COMMAND_VARIABLE, str(script))
    assert "does not start" in launch.info().detail


def test_a_server_that_did_not_start_once_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    script, memory = tmp_path / "llama-server", tmp_path / "memory"
    whole = write_server(tmp_path / "whole")
    script.write_text(f'#!/bin/sh\n[ -e {memory} ] || exit 1\nexec {whole} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv(build.COMMAND_VARIABLE, str(script))
    assert not launch.info().available
    memory.touch()
    assert launch.info().available


async def test_the_agent_goes_on_while_a_server_is_asked_for_its_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, asked, go = tmp_path / "llama-server", tmp_path / "asked", tmp_path / "go"
    waits = f"#!/bin/sh\ntouch {asked}\nwhile [ ! -e {go} ]; do sleep 0.02; done\nexit 7\n"
    script.write_text(waits, encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv(build.COMMAND_VARIABLE, str(script))
    starting = asyncio.create_task(
        start_engine(
            "llama.cpp", tmp_path, make_artifact(engine={"kind": "llama.cpp"}).manifest, EngineLimits(256),
            runtime_dir=tmp_path, ready_timeout_seconds=1,
        )
    )  # fmt: skip
    while not asked.exists():
        await asyncio.sleep(0.02)
    go.touch()
    with pytest.raises(RefusedError, match="exit status 7"):
        await starting


def test_a_board_without_a_server_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(build.COMMAND_VARIABLE, raising=False)
    monkeypatch.setattr(build, "PACKAGE", "no-such-package-here")
    info = launch.info()
    assert not info.available
    assert "EDGEWRIGHT_LLAMA_SERVER" in info.detail
    assert "edgewright[llama]" in info.detail


async def test_a_release_for_a_board_without_a_server_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(build.COMMAND_VARIABLE, "/nowhere/llama-server")
    with pytest.raises(RefusedError, match=r"'llama\.cpp' can't run here: /nowhere/llama-server"):
        await start_engine(
            "llama.cpp", tmp_path, make_artifact(engine={"kind": "llama.cpp"}).manifest, EngineLimits(256),
            runtime_dir=tmp_path, ready_timeout_seconds=1,
        )  # fmt: skip


async def test_the_user_s_own_binary_serves_and_foreign_settings_do_not_reach_it(
    tiny_onnx: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(build.COMMAND_VARIABLE, str(write_server(tmp_path)))
    monkeypatch.setenv("LLAMA_API_KEY", "secret")
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "1")
    release = tiny_llama_release(tiny_onnx, tmp_path / "release")
    async with release.running() as engine:
        _, tokens, _ = await collect(engine, GenerationRequest(prompt="the", max_tokens=3, ignore_eos=True))
        assert len(tokens) == 3


def test_a_gpu_s_build_gets_every_layer_and_older_names_of_flags(tmp_path: Path) -> None:
    flags = frozenset({*build.NEEDED_FLAGS, "--no-mmap", "--no-webui", "--swa-checkpoints", "--fit"})
    server = build.LlamaServer(("llama-server",), "6500", flags, has_gpu=True)
    words = launch.flags(
        server, tmp_path / "model.gguf", "m", EngineLimits(2048, 3, 4), tmp_path / "http.sock"
    )
    told = " ".join(words)
    assert "--gpu-layers 999" in told
    assert "--no-mmap" in told
    assert "--swa-checkpoints 0" in told
    assert "--fit off" in told
    assert "--ctx-size 6144 --parallel 3" in told
    assert "--cache-ram" not in told

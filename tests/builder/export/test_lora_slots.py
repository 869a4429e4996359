"""Adapters in the engine that serves, against PEFT's merged models on the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.engine_worker.model.backend import InvalidRequestError
from edgewright_agent.engine_worker.model.onnx import OnnxBackend
from tests.support.tiny_adapter import CONTINUATION, GREEDY_TOKENS, PROMPT
from tests.support.worker_runs import generate, generation, scheduler, score, tokens, turns

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tiny_adapter` writes."""
    folder = tmp_path_factory.mktemp("adapters")
    command = [sys.executable, "-m", "tests.support.tiny_adapter", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def backend(made: Path) -> OnnxBackend:
    return OnnxBackend(made / "tree" / "engine", made / "tree" / "tokenizer", 256, threads=1)


@pytest.fixture(scope="module")
def reference(made: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((made / "reference.json").read_text(encoding="utf-8"))
    return value


def adapter(made: Path, name: str) -> Path | None:
    return None if name == "base" else made / f"{name}.onnx_adapter"


def greedy(backend: OnnxBackend) -> list[int]:
    return generate(backend, PROMPT, GREEDY_TOKENS)


def likelihood(backend: OnnxBackend) -> float:
    (found,) = score(backend, PROMPT, [CONTINUATION])
    return found.log_likelihood


@pytest.mark.parametrize("name", ["base", "first", "second"])
def test_an_adapter_gives_what_peft_s_merged_model_gives(
    backend: OnnxBackend, made: Path, reference: dict[str, Any], name: str
) -> None:
    backend.use_adapter(adapter(made, name))
    assert likelihood(backend) == pytest.approx(reference[name]["log_likelihood"], abs=5e-3)
    assert greedy(backend) == reference[name]["greedy"]


def test_two_adapters_and_the_base_give_different_likelihoods(reference: dict[str, Any]) -> None:
    likelihoods = [said["log_likelihood"] for said in reference.values()]
    assert min(abs(a - b) for a in likelihoods for b in likelihoods if a is not b) > 0.1


def test_switching_back_gives_the_base_bit_for_bit(backend: OnnxBackend, made: Path) -> None:
    backend.use_adapter(None)
    before = likelihood(backend)
    for name in ("first", "second", "first"):
        backend.use_adapter(adapter(made, name))
        assert likelihood(backend) != before
    backend.use_adapter(None)
    assert likelihood(backend) == before


def test_a_generation_ends_with_the_adapter_it_began_with(
    backend: OnnxBackend, made: Path, reference: dict[str, Any]
) -> None:
    backend.use_adapter(adapter(made, "first"))
    first = generation(backend, PROMPT, GREEDY_TOKENS)
    running = scheduler(backend, first)
    for _ in zip(range(5), turns(running), strict=False):
        pass
    backend.use_adapter(adapter(made, "second"))
    second = generation(backend, PROMPT, GREEDY_TOKENS)
    running.add(second)
    for _ in turns(running):
        pass
    assert tokens(first) == reference["first"]["greedy"]
    assert tokens(second) == reference["second"]["greedy"]
    assert second.cached_tokens == 0


@pytest.mark.parametrize("content", [b"", b"no adapter at all" * 100])
def test_a_file_that_is_no_adapter_changes_nothing(
    backend: OnnxBackend, made: Path, reference: dict[str, Any], tmp_path: Path, content: bytes
) -> None:
    backend.use_adapter(adapter(made, "first"))
    (tmp_path / "wrong.onnx_adapter").write_bytes(content)
    with pytest.raises(InvalidRequestError, match=r"wrong\.onnx_adapter"):
        backend.use_adapter(tmp_path / "wrong.onnx_adapter")
    assert greedy(backend) == reference["first"]["greedy"]


def test_an_adapter_of_another_model_is_refused_when_it_is_loaded(
    backend: OnnxBackend, reference: dict[str, Any], tmp_path: Path
) -> None:
    import numpy as np

    from edgewright_builder.export.lora_slots import AdapterSlot, Factors, write_adapter

    backend.use_adapter(None)
    factors = Factors(np.zeros((48, 4), np.float32), np.zeros((4, 48), np.float32))
    for place in (
        AdapterSlot(0, "q_proj"),
        AdapterSlot(7, "q_proj"),
    ):  # of another width; of a layer it does not have
        write_adapter({place: factors}, tmp_path / "other.onnx_adapter")
        with pytest.raises(InvalidRequestError, match="no adapter of this model"):
            backend.use_adapter(tmp_path / "other.onnx_adapter")
    assert greedy(backend) == reference["base"]["greedy"]


def test_the_same_factors_give_the_same_bytes(tmp_path: Path) -> None:
    import numpy as np

    from edgewright_builder.export.lora_slots import AdapterSlot, Factors, write_adapter

    one = Factors(np.ones((8, 2), np.float32), np.ones((2, 8), np.float32))
    two = Factors(np.full((8, 2), 2, np.float32), np.ones((2, 8), np.float32))
    write_adapter({AdapterSlot(0, "q_proj"): one, AdapterSlot(1, "q_proj"): two}, tmp_path / "a")
    write_adapter({AdapterSlot(1, "q_proj"): two, AdapterSlot(0, "q_proj"): one}, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

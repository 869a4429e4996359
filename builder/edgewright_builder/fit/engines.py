"""What each engine can do with a model: the choices a plan has, and which processor does the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgewright.errors import InputError
from edgewright_builder.fit.architecture import Architecture

DEFAULT_ENGINE = "onnxruntime-genai"


@dataclass(frozen=True)
class EngineTraits:
    """Facts of an engine as Edgewright starts it."""

    kind: str
    processor: Literal["cpu", "gpu"]
    weight_bits: int
    embedding_bits: tuple[int, ...]  # best first
    kv_bits: tuple[int, ...]  # best first
    loads: Literal["onnx graph", "checkpoint"]  # what a build exports for it
    takes_adapters: bool
    model_types: frozenset[str]  # those its exporter or loader knows


# onnxruntime-genai 0.18.0: the model types of its models/builder.py; the wheel's CUDA code is for no Jetson, so it
# computes on the CPU, where the KV cache is float32.
_ONNX_TYPES = (
    "llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "gemma2", "gemma3_text", "gemma3", "phi3", "granite",
)  # fmt: skip
ENGINES: Mapping[str, EngineTraits] = {
    DEFAULT_ENGINE: EngineTraits(
        DEFAULT_ENGINE, "cpu", weight_bits=4, embedding_bits=(8, 4), kv_bits=(32,), loads="onnx graph",
        takes_adapters=True, model_types=frozenset(_ONNX_TYPES),
    ),
}  # fmt: skip
# Compared with others only where it is asked for: its memory has been measured with its CPU build, and a board's GPU
# takes some of its own. vLLM 0.32 loads the same types; GPTQ leaves embedding and head in 16 bits, as its KV cache is.
ON_REQUEST: Mapping[str, EngineTraits] = {
    "vllm": EngineTraits(
        "vllm", "gpu", weight_bits=4, embedding_bits=(16,), kv_bits=(16,), loads="checkpoint", takes_adapters=False,
        model_types=frozenset(_ONNX_TYPES),
    ),
}  # fmt: skip


def engine_traits(kind: str) -> EngineTraits:
    """Returns the engine of that name; raises InputError for one that is unknown."""
    known = {**ENGINES, **ON_REQUEST}
    if kind not in known:
        raise InputError(f"There is no engine {kind!r}; there are {', '.join(known)}.")
    return known[kind]


def why_not_served(traits: EngineTraits, architecture: Architecture) -> str | None:
    """Returns why the engine can't serve this type of model; None if it can."""
    if architecture.model_type in traits.model_types:
        return None
    return f"the exporter of {traits.kind} does not know the model type {architecture.model_type}"

"""What each engine can do with a model: the choices a plan has, and which processor does the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgewright_agent.errors import InputError
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
    model_types: frozenset[str]  # those its exporter or loader knows


# onnxruntime-genai 0.18.0: the model types of its models/builder.py; the wheel's CUDA code is for no Jetson, so it
# computes on the CPU, where the KV cache is float32.
_ONNX_TYPES = (
    "llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "gemma2", "gemma3_text", "gemma3", "phi3", "granite",
)  # fmt: skip
ENGINES: Mapping[str, EngineTraits] = {
    DEFAULT_ENGINE: EngineTraits(
        DEFAULT_ENGINE, "cpu", weight_bits=4, embedding_bits=(8, 4), kv_bits=(32,),
        model_types=frozenset(_ONNX_TYPES),
    ),
}  # fmt: skip
UNMEASURED = ("vllm",)


def engine_traits(kind: str) -> EngineTraits:
    """The engine of that name; raises InputError for one that is unknown or whose memory nobody has measured."""
    if kind in ENGINES:
        return ENGINES[kind]
    if kind in UNMEASURED:
        raise InputError(
            f"The memory of {kind} has not been measured, so nothing can be predicted for it; predictions exist for "
            f"{', '.join(ENGINES)}."
        )
    raise InputError(
        f"There is no engine {kind!r}; there are {', '.join((*ENGINES, *UNMEASURED))}, and predictions for "
        f"{', '.join(ENGINES)}."
    )


def why_not_served(traits: EngineTraits, architecture: Architecture) -> str | None:
    """Why the engine can't serve this type of model; None if it can."""
    if architecture.model_type in traits.model_types:
        return None
    return f"the exporter of {traits.kind} does not know the model type {architecture.model_type}"

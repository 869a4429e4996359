"""The engines that may serve: one file each says what it takes, how it lays out a model and what it can't compute."""

from __future__ import annotations

from collections.abc import Mapping

from edgewright.errors import InputError
from edgewright_builder.fit.engines import edge_llm, llama_cpp, onnx, vllm
from edgewright_builder.fit.engines.traits import EngineTraits

DEFAULT_ENGINE = onnx.TRAITS.kind
ENGINES: Mapping[str, EngineTraits] = {
    module.TRAITS.kind: module.TRAITS for module in (onnx, llama_cpp, edge_llm, vllm)
}


def engine_traits(kind: str) -> EngineTraits:
    """Returns the engine of that name; raises InputError for one that is unknown."""
    if kind not in ENGINES:
        raise InputError(f"There is no engine {kind!r}; there are {', '.join(ENGINES)}.")
    return ENGINES[kind]

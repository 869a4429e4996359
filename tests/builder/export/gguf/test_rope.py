"""Positions as llama.cpp is told of them are those that transformers computes, wherever config.json states them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from edgewright_builder.export.gguf.rope import rope_tensors, write_rope
from edgewright_builder.fit.configuration.llama_cpp import facts_of
from tests.support.configurations import LLAMA, PHI_3, factors, rope

LLAMA_3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


class Written:
    """Takes what a GGUF writer is told, by the names of its methods."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda value: self.values.update({name.removeprefix("add_"): value})


def computed(config: Mapping[str, Any]) -> tuple[Any, float]:
    """transformers' frequencies and its factor of attention."""
    theirs: Any = AutoConfig.for_model(**config)
    inverse, factor = ROPE_INIT_FUNCTIONS[theirs.rope_parameters["rope_type"]](theirs, "cpu", seq_len=8)
    return inverse.numpy(), factor


@pytest.mark.parametrize(
    "beside",
    [{}, {"original_max_position_embeddings": 64}, {"rope_parameters": {"original_max_position_embeddings": 64}},
     {"original_max_position_embeddings": 64, "rope_parameters": {"original_max_position_embeddings": 32}}],
)  # fmt: skip
def test_llama_3_s_factors_are_of_the_length_that_transformers_takes(beside: Mapping[str, Any]) -> None:
    parameters = {**rope("llama3", **LLAMA_3)["rope_parameters"], **beside.get("rope_parameters", {})}
    config = {**LLAMA, **beside, "rope_parameters": parameters}
    plain = 1.0 / 1e4 ** (np.arange(0, 32, 2, dtype=np.float32) / 32)
    ours = plain / rope_tensors("llama", facts_of(config))["rope_freqs.weight"]
    np.testing.assert_allclose(ours, computed(config)[0], rtol=1e-5)


def test_yarn_s_original_length_beside_the_parameters_goes_first() -> None:
    written = Written()
    config = {**LLAMA, **rope("yarn", factor=4.0), "original_max_position_embeddings": 64}
    write_rope(written, "llama", facts_of(config))  # type: ignore[arg-type]
    theirs: Any = AutoConfig.for_model(**config)
    theirs.standardize_rope_params()  # as its frequencies' formula does first
    assert written.values["rope_scaling_orig_ctx_len"] == 64
    assert theirs.rope_parameters["original_max_position_embeddings"] == 64


@pytest.mark.parametrize("stated", [{}, {"factor": 9.0}, {"attention_factor": 1.25}])
def test_longrope_scales_attention_as_transformers_does(stated: Mapping[str, float]) -> None:
    scaling = {"type": "longrope", **factors(16), **stated}
    phi_3 = {key: value for key, value in PHI_3.items() if value is not None}
    config = {**phi_3, "original_max_position_embeddings": 128, "rope_scaling": scaling}
    written = Written()
    write_rope(written, "phi3", facts_of(config))  # type: ignore[arg-type]
    assert written.values["rope_scaling_attn_factors"] == pytest.approx(computed(config)[1])

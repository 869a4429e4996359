"""Positions as llama.cpp is told of them: metadata, and tensors of one factor a frequency.

Formulas of the factors: transformers 5, `modeling_rope_utils.py` (`_compute_llama3_parameters`,
`_compute_longrope_parameters`); llama.cpp divides each frequency by its factor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewright_builder.fit.configuration.families import FAMILIES
from edgewright_builder.fit.configuration.features import original_maximum, rope_parameters, rope_type
from edgewright_builder.fit.configuration.llama_cpp import YARN_DEFAULTS

if TYPE_CHECKING:
    from gguf import GGUFWriter

GEMMA_3_LOCAL_THETA = 10_000.0


def global_rope(model_type: str, facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the parameters of layers that see everything, `rope_theta` among them."""
    told = facts.get("rope_parameters")
    nested = told.get("full_attention") if isinstance(told, Mapping) else None
    parameters = nested if isinstance(nested, Mapping) else rope_parameters(facts)[0]
    theta = parameters.get("rope_theta") or facts.get("rope_theta") or FAMILIES[model_type].rope_theta
    return {**parameters, "rope_theta": float(theta)}


def local_theta(facts: Mapping[str, Any]) -> float:
    """Returns the base of the frequencies in Gemma 3's windowed layers."""
    told = facts.get("rope_parameters")
    nested = told.get("sliding_attention") if isinstance(told, Mapping) else None
    theta = nested.get("rope_theta") if isinstance(nested, Mapping) else facts.get("rope_local_base_freq")
    return float(theta or GEMMA_3_LOCAL_THETA)


def rotary_dim(model_type: str, facts: Mapping[str, Any]) -> int:
    """Returns how many elements of a head positions turn."""
    parameters = global_rope(model_type, facts)
    partial = parameters.get("partial_rotary_factor") or facts.get("partial_rotary_factor") or 1.0
    return int(facts["head_dim"] * partial)


def write_rope(writer: GGUFWriter, model_type: str, facts: Mapping[str, Any]) -> None:
    """Writes base, dimension and scaling of the positions."""
    from gguf import RopeScalingType

    parameters = global_rope(model_type, facts)
    writer.add_rope_dimension_count(rotary_dim(model_type, facts))
    writer.add_rope_freq_base(parameters["rope_theta"])
    kind = rope_type(model_type, parameters)
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(parameters["factor"]))
    elif kind == "yarn":
        _write_yarn(writer, parameters, original_maximum(model_type, facts, parameters))
    elif kind == "longrope":
        original = original_maximum(model_type, facts, parameters)
        _write_longrope(writer, parameters, original, facts["max_position_embeddings"])
    if model_type == "gemma3_text":
        writer.add_rope_freq_base_swa(local_theta(facts))


def rope_tensors(model_type: str, facts: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Returns the file's tensors of factors by their names; none for most models.

    LongRoPE's short factors stand in both places: the file serves no longer sequences, and llama.cpp would take the
    long ones as soon as its cache has room for more tokens than one sequence may have.
    """
    parameters = global_rope(model_type, facts)
    kind = rope_type(model_type, parameters)
    if kind == "llama3":
        original = original_maximum(model_type, facts, parameters)
        return {"rope_freqs.weight": _llama_3_factors(parameters, original, facts["head_dim"])}
    if kind == "longrope":
        return {
            f"rope_factors_{length}.weight": np.array(parameters["short_factor"], np.float32)
            for length in ("long", "short")
        }
    return {}


def _write_yarn(writer: GGUFWriter, parameters: Mapping[str, Any], original: int) -> None:
    from gguf import RopeScalingType

    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(float(parameters["factor"]))
    writer.add_rope_scaling_orig_ctx_len(original)
    writer.add_rope_scaling_yarn_beta_fast(float(parameters.get("beta_fast") or YARN_DEFAULTS["beta_fast"]))
    writer.add_rope_scaling_yarn_beta_slow(float(parameters.get("beta_slow") or YARN_DEFAULTS["beta_slow"]))


def _write_longrope(writer: GGUFWriter, parameters: Mapping[str, Any], original: int, maximum: int) -> None:
    """The factor of attention holds for short sequences too, as transformers has it."""
    from gguf import RopeScalingType

    scale = float(parameters.get("factor") or maximum / original)
    told = parameters.get("attention_factor")
    factor = told or (math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0)
    writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
    writer.add_rope_scaling_orig_ctx_len(original)
    writer.add_rope_scaling_attn_factors(float(factor))


def _llama_3_factors(parameters: Mapping[str, Any], original: int, dim: int) -> NDArray[np.float32]:
    """Low frequencies are divided by `factor`, high ones stay, those between are blended."""
    frequencies = 1.0 / parameters["rope_theta"] ** (np.arange(0, dim, 2, dtype=np.float32) / dim)
    factor, low, high = (float(parameters[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    turns = original * frequencies / (2 * math.pi)  # over the original length
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    factors: NDArray[np.float32] = (1.0 / ((1.0 - smooth) / factor + smooth)).astype(np.float32)
    return factors

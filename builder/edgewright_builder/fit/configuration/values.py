"""Which values the keys of a decoder's config.json may have.

A number written as text, a factor of zero or a list that is too short would be a traceback in a library, or silence:
transformers only warns of most of them. Sources: the types in `configuration_*.py` and the formulas in
`modeling_rope_utils.py` of transformers 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgewright.errors import InputError

COUNT_MAX = 10**9  # the largest known vocabularies and contexts have millions
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class _Rule:
    """What a key's value must be."""

    expected: str
    holds: Callable[[Any], bool]


def is_positive(value: object) -> bool:
    """Whether `value` is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_count(value: object) -> bool:
    """Whether `value` is a whole number from 1 to `COUNT_MAX`."""
    return is_positive(value) and value <= COUNT_MAX  # type: ignore[operator]


def _is_number(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -(COUNT_MAX**2) < value < COUNT_MAX**2  # so neither NaN nor infinity


_COUNT = _Rule(f"a whole number from 1 to {COUNT_MAX:,}", is_count)
_INDEX = _Rule(
    f"a whole number from 0 to {COUNT_MAX:,}",
    lambda value: (value == 0 and value is not False) or is_count(value),
)
_POSITIVE = _Rule("a number above 0", lambda value: _is_number(value) and value > 0)
_NOT_NEGATIVE = _Rule("a number, 0 or above", lambda value: _is_number(value) and value >= 0)
_SHARE = _Rule("a number above 0, at most 1", lambda value: _is_number(value) and 0 < value <= 1)
_FLAG = _Rule("true or false", lambda value: isinstance(value, bool))
_TEXT = _Rule("a name", lambda value: isinstance(value, str))
_MAPPING = _Rule("keys and values", lambda value: isinstance(value, Mapping))
_NAMES = _Rule("a list of names", lambda value: _all(value, lambda entry: isinstance(entry, str)))
_FLAGS = _Rule("a list of 0 and 1", lambda value: _all(value, lambda entry: entry in (0, 1)))
_FACTORS = _Rule("a list of numbers above 0", lambda value: _all(value, _POSITIVE.holds))

# Of the decoder; null and a key that is missing stand for the model type's default.
_DECODER: Mapping[str, _Rule] = {
    **dict.fromkeys(
        ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size", "max_position_embeddings",
         "num_key_value_heads", "head_dim", "sliding_window", "sliding_window_pattern", "no_rope_layer_interval",
         "original_max_position_embeddings"), _COUNT,
    ),
    "max_window_layers": _INDEX,
    **dict.fromkeys(
        ("rope_theta", "rope_local_base_freq", "rms_norm_eps", "query_pre_attn_scalar", "attn_logit_softcapping",
         "final_logit_softcapping", "embedding_multiplier", "logits_scaling", "residual_multiplier",
         "attention_multiplier"), _POSITIVE,
    ),
    "partial_rotary_factor": _SHARE,
    **dict.fromkeys(
        ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window", "use_bidirectional_attention"),
        _FLAG,
    ),
    **dict.fromkeys(("hidden_act", "hidden_activation"), _TEXT),
    **dict.fromkeys(("rope_scaling", "rope_parameters"), _MAPPING),
    "layer_types": _NAMES,
    "no_rope_layers": _FLAGS,
}  # fmt: skip
# Of one set of frequencies.
_POSITIONS: Mapping[str, _Rule] = {
    **dict.fromkeys(("rope_type", "type"), _TEXT),
    **dict.fromkeys(
        ("factor", "rope_theta", "low_freq_factor", "high_freq_factor", "attention_factor"), _POSITIVE
    ),
    **dict.fromkeys(("beta_fast", "beta_slow", "mscale", "mscale_all_dim"), _NOT_NEGATIVE),
    "original_max_position_embeddings": _COUNT,
    "partial_rotary_factor": _SHARE,
    "truncate": _FLAG,
    **dict.fromkeys(("short_factor", "long_factor"), _FACTORS),
}


def check_decoder_values(facts: Mapping[str, Any]) -> None:
    """Raises InputError naming the first key of a decoder's configuration whose value is impossible."""
    _check(facts, _DECODER, "")


def check_position_values(parameters: Mapping[str, Any]) -> None:
    """Raises InputError naming the first impossible value of one set of frequencies."""
    _check(parameters, _POSITIONS, " among the positions")
    low, high = parameters.get("low_freq_factor"), parameters.get("high_freq_factor")
    if low is not None and high is not None and low >= high:
        raise InputError(
            f"`low_freq_factor: {low}` of config.json must be below `high_freq_factor`, which is {high}."
        )


def check_factor_lists(parameters: Mapping[str, Any], head_dim: int, partial: float) -> None:
    """Raises InputError where LongRoPE's lists do not have one factor for each pair of elements that turn."""
    pairs = math.ceil(int(head_dim * partial) / 2)
    for key in ("short_factor", "long_factor"):
        factors = parameters.get(key)
        if factors and len(factors) != pairs:  # the built-in models' are left out
            raise InputError(
                f"`{key}` of config.json has {len(factors)} factors, expected {pairs}: one for each pair of elements "
                f"that turn in a head of {head_dim}."
            )


def _all(value: object, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(holds(entry) for entry in value)


def _check(values: Mapping[str, Any], rules: Mapping[str, _Rule], where: str) -> None:
    for key, rule in rules.items():
        value = values.get(key)
        if value is not None and not rule.holds(value):
            shown = repr(value)[:SHOWN_CHARACTERS]
            raise InputError(
                f"`{key}: {shown}`{where} of config.json is impossible: expected {rule.expected}."
            )

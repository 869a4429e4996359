"""The earlier model that a delta-aware quantization starts from, and whether this one can follow it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.errors import InputError
from edgewright_builder.models.folder import read_config
from edgewright_builder.run.resumable_run import digest_of_products, shipped_checkpoint

SHAPE_KEYS = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
)


@dataclass(frozen=True)
class Earlier:
    """What boards already have, as the build that made it left it."""

    quantized: Path  # its GPTQ checkpoint
    unquantized: Path | None  # what that was made of: a layer with the same weights keeps all its codes
    dropped_layers: tuple[int, ...] | None  # of the base; None if the checkpoint does not tell
    dead_band: float  # steps beyond rounding in which a code is kept

    @property
    def digest(self) -> str:
        """The digest of the contents that decide the result."""
        unquantized = "" if self.unquantized is None else digest_of_products(self.unquantized, ("",))
        return f"{digest_of_products(self.quantized, ('',))} {unquantized}"


def earlier_model(source: Path, dead_band: float) -> Earlier:
    """Returns the model in `source`, a run's folder or a GPTQ checkpoint. Raises InputError if there is none."""
    quantized, unquantized = shipped_checkpoint(source), source / "finetune" / "model"
    if not (quantized / "config.json").is_file():
        quantized = source
    if not (quantized / "config.json").is_file():
        raise InputError(
            f"`quantize.delta_from` is {source}, which holds neither a run's quantize/model nor a GPTQ checkpoint. "
            "Name the folder of a finished build."
        )
    _quantization(quantized)
    is_run = quantized != source and unquantized.is_dir()
    return Earlier(
        quantized, unquantized if is_run else None, _dropped_layers(source / "plan.json"), dead_band
    )


def require_same_shape(
    config: Mapping[str, Any], group_size: int, dropped_layers: Sequence[int] | None, earlier: Earlier
) -> None:
    """Raises InputError unless a model of this `config.json` can keep the earlier one's codes.

    `dropped_layers` None: not known.
    """
    theirs = earlier.dropped_layers
    if None not in (dropped_layers, theirs) and sorted(dropped_layers or ()) != sorted(theirs or ()):
        raise InputError(
            f"The model lacks the base's layers {sorted(dropped_layers or ())}, "
            f"the earlier one {sorted(theirs or ())}: its codes can't be kept. "
            f"Set `student.drop_layers: {sorted(theirs or ())}`."
        )
    there = read_config(earlier.quantized)
    for key in SHAPE_KEYS:
        if config.get(key) != there.get(key):
            raise InputError(
                f"The model has {key} {config.get(key)}, {earlier.quantized} has {there.get(key)}: "
                "its codes can't be kept. Leave `quantize.delta_from` out, or build from the same student."
            )
    if (found := _quantization(earlier.quantized)["group_size"]) != group_size:
        raise InputError(
            f"The group size is {group_size}, that of {earlier.quantized} {found}. Set `quantize.group_size: {found}`."
        )


def _quantization(checkpoint: Path) -> dict[str, Any]:
    found = read_config(checkpoint).get("quantization_config") or {}
    if (found.get("quant_method"), found.get("bits"), found.get("sym")) != ("gptq", 4, True):
        raise InputError(
            f"{checkpoint} is no symmetric 4-bit GPTQ checkpoint; `quantize.delta_from` needs one."
        )
    return dict(found)


def _dropped_layers(plan: Path) -> tuple[int, ...] | None:
    if not plan.is_file():
        return None
    try:
        return tuple(json.loads(plan.read_text(encoding="utf-8"))["dropped_layers"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{plan} is damaged; build that run again or name its quantize/model.") from None

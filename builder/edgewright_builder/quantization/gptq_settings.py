"""Which `quantization_config` every format here holds as it is: symmetric 4-bit GPTQ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewright.errors import InputError
from edgewright_builder.models.folder import read_config

OLD_PLACE = "quantize_config.json"  # where AutoGPTQ kept the settings


def require_gptq(checkpoint: Path) -> None:
    """Raises InputError unless the checkpoint is quantized, and as `require_holdable` does."""
    if read_config(checkpoint).get("quantization_config") is None:
        hint = "quantize it with `edgewright build`"
        if (checkpoint / OLD_PLACE).is_file():
            hint = f"move the settings of its {OLD_PLACE} there, with `quant_method: gptq`"
        raise InputError(f"{checkpoint} has no `quantization_config` in its config.json: {hint}.")
    require_holdable(checkpoint)


def require_holdable(checkpoint: Path) -> None:
    """Raises InputError for a quantization other than symmetric 4-bit GPTQ without act-order; none at all is taken.

    Readers disagree about `gptq_v2`: its zero points are stored as they are, those of version 1 less one, and
    onnxruntime-genai's loader does not look.
    """
    settings = read_config(checkpoint).get("quantization_config")
    if settings is None:
        return
    if not isinstance(settings, Mapping):
        raise InputError(
            f"{checkpoint} has a `quantization_config` without keys and values: {settings!r:.60}."
        )
    if settings.get("quant_method") != "gptq":
        raise InputError(f"{checkpoint} is quantized by {settings.get('quant_method')!r}; expected GPTQ.")
    if (why := _why_not(settings)) is not None:
        raise InputError(f"{checkpoint} {why}.")


def _why_not(settings: Mapping[str, Any]) -> str | None:
    """Returns what of GPTQ's settings no format here holds, to follow the checkpoint's name."""
    if settings.get("bits") != 4:
        return f"has {settings.get('bits')} bits a weight; 4 are held"
    if not settings.get("sym", True):
        return "is asymmetric (`sym: false`), and zero points are not held; quantize with `sym`"
    if settings.get("desc_act"):
        return "has act-order (`desc_act`), and only consecutive groups are held; quantize without"
    stored_as = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    if stored_as != "gptq":
        return f"is stored as {stored_as!r}, expected 'gptq' (version 1); save it anew with `format: gptq`"
    if settings.get("lm_head"):
        return "has a quantized head (`lm_head`), which is taken in floats; quantize without"
    if settings.get("dynamic"):
        return "gives modules bits of their own (`dynamic`); quantize all of them alike"
    return None

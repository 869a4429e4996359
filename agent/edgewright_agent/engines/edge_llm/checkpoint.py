"""Which checkpoints TensorRT Edge-LLM can build an engine from: read in its wheel 0.11.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgewright.errors import InputError

# `experimental/builder/models/registry.py` has more; these are the families that a build can make.
MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
GROUP_SIZE = 128  # "Int4 group gemv only supports group_size=128": the decoding kernel for Orin


def read_config(model: Path) -> dict[str, Any]:
    """Returns the configuration of a checkpoint that an engine can be built from. Raises InputError."""
    file = model / "config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"The release holds no checkpoint for TensorRT Edge-LLM: {file}: {error}."
        ) from error
    if (why := complaint_of_config(config)) is not None:
        raise InputError(f"TensorRT Edge-LLM can't serve the release: {why}.")
    if not (model / "tokenizer.json").is_file():
        raise InputError(f"The release holds no tokenizer beside its weights: {model / 'tokenizer.json'}.")
    return config


def complaint_of_config(config: dict[str, Any]) -> str | None:
    """Returns why no engine can be built from a checkpoint of this configuration; None if one can."""
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        return f"its builder is used for {', '.join(sorted(MODEL_TYPES))}, and the model is {model_type}"
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        return None  # 16 bits
    method, group = quantization.get("quant_method"), quantization.get("group_size")
    if method != "gptq":
        return f"it builds from GPTQ checkpoints, and this one is {method}"
    if group != GROUP_SIZE:
        return f"its kernel takes groups of {GROUP_SIZE}, and the checkpoint has groups of {group}"
    return None


def end_tokens(model: Path, config: dict[str, Any]) -> tuple[int, ...]:
    """Returns the tokens that end a text."""
    try:
        generation = json.loads((model / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        generation = {}
    named = generation.get("eos_token_id", config.get("eos_token_id"))
    return () if named is None else tuple(named) if isinstance(named, list) else (int(named),)


def adds_bos(tokenizer: Path) -> bool:
    """Whether the tokenizer in this folder begins every text with its BOS.

    Its post-processor decides, as for transformers; the runtime encodes text without it.
    """
    document = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    return any(_begins_with_special(step) for step in _steps(document.get("post_processor")))


def _steps(processor: Any) -> list[dict[str, Any]]:
    if not isinstance(processor, dict):
        return []
    inner = processor.get("processors")
    return [step for each in inner for step in _steps(each)] if isinstance(inner, list) else [processor]


def _begins_with_special(step: dict[str, Any]) -> bool:
    single = step.get("single") if step.get("type") == "TemplateProcessing" else None
    return isinstance(single, list) and bool(single) and "SpecialToken" in single[0]

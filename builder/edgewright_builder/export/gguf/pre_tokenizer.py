"""How a tokenizer cuts text before it merges: llama.cpp has that in code, under names; the right name is found here.

Names and patterns: llama.cpp b11549, `src/llama-vocab.cpp`. A name is given only where `tokenizer.json` cuts in exactly
that way; llama.cpp's own converter guesses from the tokens of a sample text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgewright.errors import InputError

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA_3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
QWEN_2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = r"[^\r\n\p{L}\p{N}]?"
_CASED_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"{_CASED}{_UPPER}*{_LOWER}+|{_CASED}{_UPPER}+{_LOWER}*|\p{{N}}|{_CASED_REST}"
GPT_4O = (
    rf"{_CASED}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_CASED}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{_CASED_REST}"
)
# (steps of the pre-tokenizer, whether whole words of the vocabulary skip the merges) → name
NAMES: Mapping[tuple[tuple[str, ...], bool], str] = {
    (("words",), False): "gpt-2",
    (("digits", "words"), False): "smollm",
    ((LLAMA_3, "bytes"), True): "llama-bpe",
    ((LLAMA_3, "bytes"), False): "dbrx",
    ((QWEN_2, "bytes"), False): "qwen2",
    ((TEKKEN, "bytes"), True): "tekken",
    ((GPT_4O, "bytes"), False): "gpt-4o",
}


def pre_tokenizer_name(tokenizer: Mapping[str, Any]) -> str:
    """Returns llama.cpp's name for how the byte-level `tokenizer.json` cuts. Raises InputError where it has none."""
    steps = tuple(_step(each) for each in _flat(tokenizer.get("pre_tokenizer") or {}))
    whole_words = bool(tokenizer["model"].get("ignore_merges"))
    name = NAMES.get((steps, whole_words))
    if name is None:
        raise InputError(
            f"llama.cpp has no pre-tokenizer that cuts as this model's does: {', '.join(steps) or 'none'}. "
            "Serve it with another engine."
        )
    return name


def _flat(pre_tokenizer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if pre_tokenizer.get("type") == "Sequence":
        return [step for each in pre_tokenizer["pretokenizers"] for step in _flat(each)]
    return [pre_tokenizer] if pre_tokenizer else []


def _step(step: Mapping[str, Any]) -> str:
    kind = str(step.get("type"))
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return "words" if step.get("use_regex", True) else "bytes"
    if kind == "Digits" and step.get("individual_digits"):
        return "digits"
    pattern = step.get("pattern", {})
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        regex = str(pattern.get("Regex", pattern))
        return "digits" if regex == r"\p{N}" else regex
    return f"{kind} {step}"

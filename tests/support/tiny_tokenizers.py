"""Tokenizers of many kinds, trained on a page of text in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXT = """In 2024 the river rose by 17 metres, and 1203 people left their houses near the wide water.
Plants need water, light and air; unbelievable heights of 201 and 202 metres were measured on the way to the north.
Über den Wolken muß die Freiheit wohl grenzenlos sein. Ça va très bien. 東京 is a city. Gravity pulls it down!
def add(a, b):\n    return a + b\n\nWhat is 12 + 30? The answer is 42. Which force makes a dropped spoon fall?"""


@lru_cache
def byte_level(size: int, special: tuple[str, ...] = ("<|end|>",), digits: bool = False) -> Tokenizer:
    """A byte-level BPE as GPT-2's; `digits`: each digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), split]) if digits else split
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXT.split("\n"), trainer)
    return tokenizer


@lru_cache
def sentencepiece(
    size: int, special: tuple[str, ...] = ("</s>",), prefix: bool = False, across_words: bool = False
) -> Tokenizer:
    """A BPE in SentencePiece's notation, with bytes for what it does not know.

    prefix: a space goes before every text, as in Llama 2. across_words: tokens may hold several words.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=False))
    steps: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    if not across_words:
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    data = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*special, *data], show_progress=False)
    tokenizer.train_from_iterator(TEXT.split("\n"), trainer)
    return _with_plain_bytes(tokenizer, special)


def _with_plain_bytes(tokenizer: Tokenizer, special: Sequence[str]) -> Tokenizer:
    """Takes the byte tokens out of the added ones: they are found by falling back, never in a text."""
    import json

    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in special]
    return Tokenizer.from_str(json.dumps(state))


def normalizing(size: int) -> Tokenizer:
    """A byte-level BPE that rewrites its text first (NFKC), so that its tokens are not the text's bytes."""
    tokenizer = Tokenizer.from_str(byte_level(size).to_str())
    tokenizer.normalizer = normalizers.NFKC()
    return tokenizer

"""Tokenizers of each kind that llama.cpp knows by a name, texts that tell them apart, and a GGUF file of one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers, processors

from edgewright_builder.export.gguf.file import write_gguf
from edgewright_builder.export.gguf.pre_tokenizer import GPT_4O, LLAMA_3, QWEN_2, TEKKEN
from tests.support.gptq_checkpoints import FAMILIES, random_checkpoint
from tests.support.tiny_tokenizers import byte_level, sentencepiece

SIZE = 420
SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def cutting(pattern: str, whole_words: bool = False) -> Tokenizer:
    """A byte-level BPE that cuts by a pattern; with `whole_words`, one of the vocabulary skips the merges."""
    document = json.loads(byte_level(SIZE, SPECIAL).to_str())
    document["model"]["ignore_merges"] = whole_words
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    return tokenizer


def with_words_of_its_own() -> Tokenizer:
    """Tokens that are cut out of a text before all else, one of them beginning with a blank."""
    tokenizer = Tokenizer.from_str(byte_level(SIZE - 2, SPECIAL).to_str())
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("  ", normalized=False)])
    return tokenizer


KINDS: Mapping[str, Callable[[], Tokenizer]] = {
    "GPT-2": lambda: byte_level(SIZE, SPECIAL),
    "SmolLM": lambda: byte_level(SIZE, SPECIAL, digits=True),
    "Llama 3": lambda: cutting(LLAMA_3, whole_words=True),
    "DBRX, Phi-4": lambda: cutting(LLAMA_3),
    "Qwen 2": lambda: cutting(QWEN_2),
    "Tekken": lambda: cutting(TEKKEN, whole_words=True),
    "GPT-4o": lambda: cutting(GPT_4O),
    "SentencePiece": lambda: sentencepiece(SIZE, SPECIAL),
    "SentencePiece, a space before": lambda: sentencepiece(SIZE, SPECIAL, prefix=True),
    "words of its own": with_words_of_its_own,
}
TEXTS = (
    "In 2024 the river rose by 17 metres.", "It's we'll I'VE they'd", "  two  blanks   three ",
    "tab\tand\r\nlines\n\n\n",
    "Über den Wolken, ça va", "東京 is a city 🙂🙂", "a\u0301e\u0308", "x = f(a[0], b)//c  # no", "CamelCase and UPPER",
    "<|im_start|>user\nhi<|im_end|>", "123456789", "...!?—“q”", "\u00a0\u2003wide", "<tool>x  y<tool>",
)  # fmt: skip
LETTERS = "aeiounrst ATHE  019'\n.,-_/ßé東я🙂\t"


def some_texts() -> list[str]:
    draw = random.Random(0)
    return [*TEXTS, *("".join(draw.choices(LETTERS, k=draw.randint(1, 40))) for _ in range(150))]


def write(tokenizer: Tokenizer, folder: Path, *, bos: bool = False) -> Path:
    """A checkpoint with this tokenizer, as a GGUF file."""
    config = {**FAMILIES["llama"], "vocab_size": tokenizer.get_vocab_size() + 3}  # padded, as many models are
    checkpoint = random_checkpoint(config, folder / "checkpoint", 32)
    if bos:
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": TEMPLATE}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    write_gguf(checkpoint, 8, folder / "model.gguf", "tiny")
    return folder / "model.gguf"

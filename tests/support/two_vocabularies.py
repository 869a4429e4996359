"""A tiny student and tiny teachers with tokenizers and chat templates of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.tiny_tokenizers import byte_level, sentencepiece

STUDENT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEACHER_TEMPLATE = (
    "<s>{% for m in messages %}<turn>{{ m['role'] }}\n{{ m['content'] | trim }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
PAIRS: list[dict[str, Any]] = [
    {"instruction": f"What rose by {number} metres?", "input": "", "output": f"The {thing} rose by {number} metres!"}
    for number in (17, 201, 202, 1203)
    for thing in ("river", "unbelievable water", "Wolken", "light 東京")
]  # fmt: skip


def student_tokenizer() -> Any:
    """Byte-level, in which each digit is a token."""
    from transformers import PreTrainedTokenizerFast

    backend = byte_level(420, ("<|end|>", "<|user|>", "<|assistant|>"), digits=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>", chat_template=STUDENT_TEMPLATE
    )


def teacher_tokenizer(template: str | None = TEACHER_TEMPLATE) -> Any:
    """SentencePiece's notation, in which numbers are packed and tokens cross words."""
    from transformers import PreTrainedTokenizerFast

    backend = sentencepiece(700, ("</turn>", "<turn>", "<s>"), across_words=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</turn>", chat_template=template
    )


@dataclass(frozen=True)
class TwoModels:
    """Folders of a student and of a teacher that share no tokenizer."""

    student: Path
    teacher: Path


def write_model(folder: Path, tokenizer: Any, seed: int, vocabulary: int) -> Path:
    """A Llama of two small layers with this tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=0,
        eos_token_id=tokenizer.eos_token_id, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_models(folder: Path) -> TwoModels:
    """Both models; the heads are padded."""
    return TwoModels(
        write_model(folder / "student", student_tokenizer(), 1, 432),
        write_model(folder / "teacher", teacher_tokenizer(), 2, 704),
    )


def samples_of(
    tokenizer: Any, pairs: Sequence[dict[str, Any]] = PAIRS, loss_on: Any = "response"
) -> list[Any]:
    """The pairs in a tokenizer's own template."""
    from edgewright_builder.train.samples import make_sample

    made = [make_sample(tokenizer, pair, loss_on, 256) for pair in pairs]
    return [sample for sample in made if sample is not None]

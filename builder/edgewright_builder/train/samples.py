"""Turns question-answer pairs into token sequences and batches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One sequence in the model's chat template. Positions [first, len − 1) predict a counted token."""

    tokens: tuple[int, ...]
    first: int  # first position whose next token counts

    @property
    def counted_tokens(self) -> int:
        """How many next tokens count in the loss."""
        return len(self.tokens) - 1 - self.first


@dataclass(frozen=True)
class Batch:
    """Right-padded sequences of several samples."""

    indices: tuple[int, ...]  # which samples
    input_ids: Tensor  # (samples, positions)
    attention_mask: Tensor  # (samples, positions)
    counted: Tensor  # (samples, positions) bool: the next token counts
    labels: Tensor  # (counted tokens,) next tokens, in row order


def make_sample(
    tokenizer: Any, pair: dict[str, str], loss_on: Literal["response", "sequence"], sequence_tokens: int
) -> Sample | None:
    """A pair in the chat template, cut to `sequence_tokens`; None if nothing is left to learn from."""
    prompt, text = chat_texts(tokenizer, pair)
    tokens = tokenizer(text, add_special_tokens=False).input_ids[:sequence_tokens]
    first = len(tokenizer(prompt, add_special_tokens=False).input_ids) - 1 if loss_on == "response" else 0
    sample = Sample(tuple(tokens), first)
    return sample if sample.counted_tokens > 0 else None


def chat_texts(tokenizer: Any, pair: dict[str, str]) -> tuple[str, str]:
    """The prompt alone, and prompt with answer, as the model's chat template writes them.

    A tokenizer without a template gets Alpaca's (Taori et al. 2023).
    """
    question = "\n".join(part for part in (pair["instruction"], pair.get("input", "")) if part)
    if tokenizer.chat_template is None:
        prompt = f"### Instruction:\n{question}\n\n### Response:\n"
        return prompt, prompt + pair["output"] + (tokenizer.eos_token or "")
    user = {"role": "user", "content": question}
    assistant = {"role": "assistant", "content": pair["output"]}
    prompt = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    return prompt, tokenizer.apply_chat_template([user, assistant], tokenize=False)


def split(samples: Sequence[Sample], validation_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the training and of the validation samples, the same for the same seed. Both non-empty."""
    order = list(range(len(samples)))
    random.Random(seed).shuffle(order)  # noqa: S311 - not for secrets
    validation = max(1, round(validation_fraction * len(order)))
    return sorted(order[validation:]), sorted(order[:validation])


def make_batches(
    samples: Sequence[Sample], indices: Sequence[int], batch_tokens: int, seed: int | None
) -> list[list[int]]:
    """Groups samples of similar length so that samples × longest ≤ `batch_tokens`; shuffles the groups by `seed`.

    A sample longer than `batch_tokens` gets a batch of its own.
    """
    by_length = sorted(indices, key=lambda index: (len(samples[index].tokens), index))
    batches: list[list[int]] = []
    for index in by_length:
        longest = len(samples[index].tokens)  # sorted, so this one is
        if batches and (len(batches[-1]) + 1) * longest <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    if seed is not None:
        random.Random(seed).shuffle(batches)  # noqa: S311 - not for secrets
    return batches


def collate(samples: Sequence[Sample], indices: Sequence[int], pad_token: int, device: torch.device) -> Batch:
    """The padded tensors of the samples `indices`."""
    positions = max(len(samples[index].tokens) for index in indices)
    input_ids = torch.full((len(indices), positions), pad_token)
    counted = torch.zeros((len(indices), positions), dtype=torch.bool)
    mask = torch.zeros((len(indices), positions), dtype=torch.long)
    labels: list[int] = []
    for row, index in enumerate(indices):
        sample = samples[index]
        input_ids[row, : len(sample.tokens)] = torch.tensor(sample.tokens)
        mask[row, : len(sample.tokens)] = 1
        counted[row, sample.first : len(sample.tokens) - 1] = True
        labels.extend(sample.tokens[sample.first + 1 :])
    return Batch(
        tuple(indices),
        input_ids.to(device),
        mask.to(device),
        counted.to(device),
        torch.tensor(labels, device=device),
    )

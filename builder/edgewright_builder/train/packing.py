"""Lays samples out for the model: what they have in common is read once, and nothing is padded.

A pack is one row, [shared beginning, rest of sample 1, rest of sample 2, …]. A mask shows each rest the beginning and
itself, and its positions go on from the beginning's end, so every state is that of the sample alone. Samples in a chat
template begin alike: of SmolLM2's short questions two fifths are its system prompt. The last token of a sample is only
predicted, so it is not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgewright_builder.scoring.tokens import shared_tokens
from edgewright_builder.train.samples import Sample

# The states that a backward pass needs of so many tokens stay small, and so do their trips through the caches.
PACK_TOKENS = 384
PACK_TOKENS_ON_GPU = 4096
TOLERANCE = 2e-2  # relative: far above rounding, bfloat16's too, and far below what a wrong mask does


@dataclass(frozen=True)
class Batch:
    """Samples as the model reads them, in one pass."""

    indices: tuple[int, ...]  # which samples
    inputs: dict[str, Tensor]  # keyword arguments of the decoder
    counted: (
        Tensor  # (counted tokens,) place in the flattened rows whose next token counts, sample after sample
    )
    labels: Tensor  # (counted tokens,) those next tokens
    step: tuple[int, ...]  # all samples of the optimizer step that these are a part of
    step_tokens: int  # their counted tokens


@dataclass(frozen=True)
class Layout:
    """How batches of these samples are laid out for one model."""

    samples: Sequence[Sample]
    pad_token: int
    device: torch.device
    dtype: torch.dtype  # of the model, and so of its masks
    packs: bool  # whether the model follows a mask that is given

    def batches(self, indices: Sequence[int]) -> Iterator[Batch]:
        """Yields the samples `indices`, in order, in packs; padded and all at once where the model can't have packs."""
        if not self.packs:
            yield pad(self.samples, indices, self.pad_token, self.device)
            return
        most = PACK_TOKENS if self.device.type == "cpu" else PACK_TOKENS_ON_GPU
        tokens = sum(self.samples[index].counted_tokens for index in indices)
        for some in _groups(self.samples, indices, most):
            batch = pack(self.samples, some, self.device, self.dtype)
            yield replace(batch, step=tuple(indices), step_tokens=tokens)


def layout_for(model: nn.Module, samples: Sequence[Sample], pad_token: int) -> Layout:
    """Returns the layout for a causal language model, which is asked whether packed states are the plain ones."""
    parameter = next(model.parameters())
    longest = max(len(sample.tokens) for sample in samples)
    packs = longest <= _narrowest_window(model.config) and _follows_masks(model)
    return Layout(samples, pad_token, parameter.device, parameter.dtype, packs)


def counted_hidden(model: nn.Module, batch: Batch) -> Tensor:
    """Returns (counted tokens, hidden): final hidden states where the next token counts, sample after sample."""
    decoder = model.get_decoder()  # type: ignore[operator]
    hidden: Tensor = decoder(**batch.inputs, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1)[batch.counted.to(hidden.device)]  # several GPUs: it ends on another one


def pack(
    samples: Sequence[Sample], indices: Sequence[int], device: torch.device, dtype: torch.dtype
) -> Batch:
    """Returns the samples `indices` as one row."""
    chosen = [samples[index] for index in indices]
    shared = shared_tokens([sample.tokens for sample in chosen])
    tokens, positions, owners = list(chosen[0].tokens[:shared]), list(range(shared)), [-1] * shared
    counted: list[int] = []
    labels: list[int] = []
    for owner, sample in enumerate(chosen):
        end, shift = len(sample.tokens) - 1, len(tokens) - shared
        tokens += sample.tokens[shared:end]
        positions += range(shared, end)
        owners += [owner] * (end - shared)
        counted += [place if place < shared else place + shift for place in range(sample.first, end)]
        labels += sample.tokens[sample.first + 1 :]
    inputs = {
        "input_ids": torch.tensor([tokens], device=device),
        "position_ids": torch.tensor([positions], device=device),
        "attention_mask": _mask(torch.tensor(owners, device=device), dtype),
    }
    return _batch(indices, inputs, counted, labels)


def pad(samples: Sequence[Sample], indices: Sequence[int], pad_token: int, device: torch.device) -> Batch:
    """Returns the samples `indices` as rows that are padded at the right."""
    chosen = [samples[index] for index in indices]
    width = max(len(sample.tokens) for sample in chosen)
    ids = torch.full((len(chosen), width), pad_token)
    mask = torch.zeros((len(chosen), width), dtype=torch.long)
    counted: list[int] = []
    labels: list[int] = []
    for row, sample in enumerate(chosen):
        ids[row, : len(sample.tokens)] = torch.tensor(sample.tokens)
        mask[row, : len(sample.tokens)] = 1
        counted += range(row * width + sample.first, row * width + len(sample.tokens) - 1)
        labels += sample.tokens[sample.first + 1 :]
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    return _batch(indices, inputs, counted, labels)


def _batch(indices: Sequence[int], inputs: dict[str, Tensor], counted: list[int], labels: list[int]) -> Batch:
    device = inputs["input_ids"].device
    places, tokens = (torch.tensor(values, device=device) for values in (counted, labels))
    return Batch(tuple(indices), inputs, places, tokens, tuple(indices), len(labels))


def _groups(samples: Sequence[Sample], indices: Sequence[int], tokens_max: int) -> Iterator[list[int]]:
    """Yields runs of `indices` whose packs have at most `tokens_max` tokens; at least one sample in each."""
    group: list[int] = []
    for index in indices:
        sequences = [samples[each].tokens for each in (*group, index)]
        shared = shared_tokens(sequences)
        if group and shared + sum(len(tokens) - 1 - shared for tokens in sequences) > tokens_max:
            yield group
            group = []
        group = [*group, index]
    yield group


def _mask(owners: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns what is added to the attention's scores, (1, 1, places, places); owner −1 is what all have in common."""
    visible = (owners[:, None] == owners[None]) | (owners[None] == -1)
    mask = torch.full(visible.shape, torch.finfo(dtype).min, dtype=dtype, device=owners.device)
    return mask.masked_fill_(visible.tril(), 0.0)[None, None]


def _narrowest_window(config: Any) -> float:
    """Returns the tokens that a layer with a window sees; a mask that is given replaces the window."""
    window = getattr(config.get_text_config(), "sliding_window", None)
    return float("inf") if window is None else window


@torch.inference_mode()
def _follows_masks(model: nn.Module) -> bool:
    """Whether the states of two samples in a pack are those of each alone."""
    vocabulary = int(model.config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]
    beginning = [token % vocabulary for token in (5, 17, 29)]
    pair = [Sample((*beginning, token % vocabulary, 7 % vocabulary, 0), 0) for token in (41, 53)]
    parameter = next(model.parameters())
    packed = counted_hidden(model, pack(pair, (0, 1), parameter.device, parameter.dtype))
    plain = counted_hidden(model, pad(pair, (0, 1), 0, parameter.device))
    return float((packed - plain).float().norm()) <= TOLERANCE * float(plain.float().norm())

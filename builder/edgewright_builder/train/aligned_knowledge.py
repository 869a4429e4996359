"""T2's knowledge in a vocabulary of its own, held against a student's where both have read the same text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from edgewright_builder.train.cross_vocabulary import Letters, compared_loss, projected_kl, uld
from edgewright_builder.train.knowledge import Logits
from edgewright_builder.train.losses import CHUNK_TOKENS
from edgewright_builder.train.packing import Batch
from edgewright_builder.train.samples import Sample

CHUNK_TOKENS_MIN = 16


@dataclass(frozen=True)
class AlignedStates:
    """T2's final hidden states at the boundaries that it shares with the student's tokens."""

    samples: Sequence[Sample]  # the student's
    positions_of: Callable[[int], Tensor]  # sample index → its counted positions that are compared, ascending
    hidden_of: Callable[[int], Tensor]  # sample index → (compared positions, T2's hidden)
    head: Tensor  # (T2's vocabulary, T2's hidden)
    letters: Letters
    method: Literal["projected", "uld"]

    def loss(self, hidden: Tensor, head: Tensor, batch: Batch, alpha: float, temperature: float) -> Tensor:
        """Returns equation (5) with the comparison of the two vocabularies in place of the KL divergence."""
        compare = projected_kl(self.letters, temperature) if self.method == "projected" else uld(temperature)
        states, (compared, tokens) = self._states(batch.indices), self._shares(batch)
        share = alpha * compared + (1 - alpha) * tokens
        part = compared_loss(
            hidden,
            head[: len(self.letters.student)],
            batch.labels,
            self._rows(batch.indices).to(hidden.device),
            lambda rows: (states[rows] @ self.head.T).to(hidden.device),
            compare,
            alpha * compared / share if share else alpha,
            self._chunk_tokens,
        )
        return share * part

    def _shares(self, batch: Batch) -> tuple[float, float]:
        """Returns the batch's shares of its step's compared positions and of its counted tokens."""
        positions, all_positions = (
            sum(len(self.positions_of(index)) for index in indices) for indices in (batch.indices, batch.step)
        )
        return positions / max(1, all_positions), len(batch.labels) / batch.step_tokens

    def divergences(self, logits: Logits, indices: Sequence[int]) -> list[Tensor]:
        """Returns the projected KL divergence at the compared positions, whichever loss is trained."""
        compare, rows, states = projected_kl(self.letters, 1.0), self._rows(indices), self._states(indices)
        vocabulary, values = len(self.letters.student), [torch.zeros(0)]
        for start in range(0, len(rows), self._chunk_tokens):
            chunk = slice(start, start + self._chunk_tokens)
            teacher = states[chunk] @ self.head.T
            student = logits(_span(rows[chunk]), vocabulary)[rows[chunk] - rows[start]]
            values.append(compare(student.to(teacher.device), teacher)[0].cpu())
        return list(torch.split(torch.cat(values), [len(self.positions_of(index)) for index in indices]))

    @property
    def _chunk_tokens(self) -> int:
        """Tokens of a chunk that takes the memory of one within the student's vocabulary."""
        ours, theirs = len(self.letters.student), len(self.letters.teacher)
        return max(CHUNK_TOKENS_MIN, 2 * ours * CHUNK_TOKENS // (ours + theirs))

    def _states(self, indices: Sequence[int]) -> Tensor:
        return torch.cat([self.hidden_of(index) for index in indices]).to(self.head.device)

    def _rows(self, indices: Sequence[int]) -> Tensor:
        """Returns the compared positions among all counted ones of these samples, one sample after the other."""
        rows, start = [], 0
        for index in indices:
            rows.append(self.positions_of(index) + start)
            start += self.samples[index].counted_tokens
        return torch.cat(rows)


def _span(rows: Tensor) -> slice:
    return slice(int(rows[0]), int(rows[-1]) + 1)

"""T2's knowledge where both models have read the same text: hidden states in its own vocabulary, or top-k answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from edgewright_builder.train.cross_vocabulary import (
    Comparison,
    Letters,
    Teacher,
    compared_loss,
    letter_distribution,
    projected_kl,
    uld,
)
from edgewright_builder.train.distillation_losses import CHUNK_TOKENS
from edgewright_builder.train.output_head import OutputHead
from edgewright_builder.train.packing import Batch
from edgewright_builder.train.samples import Sample
from edgewright_builder.train.teacher_knowledge import Logits
from edgewright_builder.train.top_k_losses import TopAnswers, top_k_kl

CHUNK_TOKENS_MIN = 16


@dataclass(frozen=True)
class Positions:
    """Which of the student's counted positions are compared with T2."""

    samples: Sequence[Sample]  # the student's
    compared: Callable[[int], Tensor]  # sample index → positions among its counted ones, ascending

    def rows(self, indices: Sequence[int]) -> Tensor:
        """Returns the compared positions among all counted ones of these samples, one sample after the other."""
        rows, start = [torch.zeros(0, dtype=torch.long)], 0
        for index in indices:
            rows.append(self.compared(index) + start)
            start += self.samples[index].counted_tokens
        return torch.cat(rows)

    def share(self, batch: Batch, alpha: float) -> tuple[float, float]:
        """Returns the batch's share of its step's loss, and α within the batch.

        The comparison is averaged over a step's compared positions, the cross-entropy over its counted tokens.
        """
        positions, of_step = (
            sum(len(self.compared(index)) for index in indices) for indices in (batch.indices, batch.step)
        )
        compared = alpha * positions / max(1, of_step)
        share = compared + (1 - alpha) * len(batch.labels) / batch.step_tokens
        return share, compared / share if share else alpha

    def divergences(
        self,
        logits: Callable[[slice], Tensor],
        indices: Sequence[int],
        teacher: Callable[[slice], Teacher],
        compare: Comparison[Teacher],
        chunk_tokens: int,
    ) -> list[Tensor]:
        """Returns the comparison at each compared position of each sample, computed in chunks."""
        rows, values = self.rows(indices), [torch.zeros(0)]
        for start in range(0, len(rows), chunk_tokens):
            chunk = rows[start : start + chunk_tokens]
            student = logits(slice(int(chunk[0]), int(chunk[-1]) + 1))[chunk - chunk[0]]
            values.append(compare(student, teacher(slice(start, start + chunk_tokens)))[0].cpu())
        return list(torch.split(torch.cat(values), [len(self.compared(index)) for index in indices]))


@dataclass(frozen=True)
class AlignedStates:
    """T2's final hidden states at the boundaries that it shares with the student's tokens."""

    positions: Positions
    hidden_of: Callable[[int], Tensor]  # sample index → (compared positions, T2's hidden)
    head: OutputHead  # T2's
    letters: Letters
    method: Literal["projected", "uld"]

    def loss(
        self, hidden: Tensor, head: OutputHead, batch: Batch, alpha: float, temperature: float
    ) -> Tensor:
        """Returns equation (5) with the comparison of the two vocabularies in place of the KL divergence."""
        projected = self.method == "projected"
        share, alpha = self.positions.share(batch, alpha)
        return share * compared_loss(
            hidden,
            head.cut(len(self.letters.student)),
            batch.labels,
            self.positions.rows(batch.indices).to(hidden.device),
            self._spread(batch.indices, temperature, hidden.device)
            if projected
            else self._logits(batch.indices, hidden.device),
            projected_kl(self.letters, temperature) if projected else uld(temperature),
            alpha,
            CHUNK_TOKENS if projected else self._whole_chunk_tokens,
        )

    def divergences(self, logits: Logits, indices: Sequence[int]) -> list[Tensor]:
        """Returns the projected KL divergence at the compared positions, whichever loss is trained."""
        vocabulary, device = len(self.letters.student), self.head.weight.device
        return self.positions.divergences(
            lambda rows: logits(rows, vocabulary).to(device),
            indices,
            self._spread(indices, 1.0, device),
            projected_kl(self.letters, 1.0),
            CHUNK_TOKENS,
        )

    @property
    def _whole_chunk_tokens(self) -> int:
        """Tokens of a chunk that takes the memory of one within the student's vocabulary, with all of T2's logits."""
        ours, theirs = len(self.letters.student), len(self.letters.teacher)
        return max(CHUNK_TOKENS_MIN, 2 * ours * CHUNK_TOKENS // (ours + theirs))

    def _logits(self, indices: Sequence[int], device: torch.device) -> Callable[[slice], Tensor]:
        states = self._states(indices)
        return lambda rows: self.head.logits(states[rows]).to(device)

    def _spread(
        self, indices: Sequence[int], temperature: float, device: torch.device
    ) -> Callable[[slice], Tensor]:
        """Returns compared positions → C·q, (positions, letters)."""
        states = self._states(indices)
        return lambda rows: letter_distribution(self.head, states[rows], self.letters, temperature).to(device)

    def _states(self, indices: Sequence[int]) -> Tensor:
        return torch.cat([self.hidden_of(index) for index in indices]).to(self.head.weight.device)


@dataclass(frozen=True)
class TopK:
    """The k most likely next tokens that a served T2 named, where it is compared with the student."""

    positions: Positions
    answers_of: Callable[[int], TopAnswers]  # sample index → its compared positions' answers
    vocabulary: int  # the rows of the student's head that are compared
    letters: Letters | None  # None: T2's tokens are the student's

    def loss(
        self, hidden: Tensor, head: OutputHead, batch: Batch, alpha: float, temperature: float
    ) -> Tensor:
        """Returns equation (5) with the KL divergence of the coarsened distributions."""
        share, alpha = self.positions.share(batch, alpha)
        return share * compared_loss(
            hidden,
            head.cut(self.vocabulary),
            batch.labels,
            self.positions.rows(batch.indices).to(hidden.device),
            self._answers(batch.indices, hidden.device),
            top_k_kl(temperature, self.letters),
            alpha,
        )

    def divergences(self, logits: Logits, indices: Sequence[int]) -> list[Tensor]:
        """Returns the divergence of the coarsened distributions, which is at most that of the whole ones."""
        device = torch.device("cpu") if self.letters is None else self.letters.student.device
        return self.positions.divergences(
            lambda rows: logits(rows, self.vocabulary).to(device),
            indices,
            self._answers(indices, device),
            top_k_kl(1.0, self.letters),
            CHUNK_TOKENS,
        )

    def _answers(self, indices: Sequence[int], device: torch.device) -> Callable[[slice], TopAnswers]:
        parts = [self.answers_of(index) for index in indices]
        tokens = torch.cat([part.tokens for part in parts]).to(device)
        log_probabilities = torch.cat([part.log_probabilities for part in parts]).to(device)
        return TopAnswers(tokens, log_probabilities).__getitem__

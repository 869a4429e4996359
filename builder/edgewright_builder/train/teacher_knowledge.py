"""What the knowledge teacher T2 says of the samples' next tokens, and how a student is held against it.

T2's knowledge is kept in several forms. Search, fine-tuning, recovery and the ladder see this interface alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from edgewright_builder.train.distillation_losses import distillation_loss, kl_per_token
from edgewright_builder.train.output_head import OutputHead
from edgewright_builder.train.packing import Batch

# (rows, vocabulary): a student's logits at these rows of its counted positions, cut to that many tokens.
Logits = Callable[[slice, int], Tensor]


class Knowledge(Protocol):
    """T2's knowledge of every sample, in whatever form it was kept."""

    def loss(
        self, hidden: Tensor, head: OutputHead, batch: Batch, alpha: float, temperature: float
    ) -> Tensor:
        """Returns the batch's part of equation (5) of `distillation_losses`, averaged over all samples of its step.

        The parts of a step add up to its loss. A scalar, differentiable in `hidden` only.

        hidden: (counted tokens, hidden), the student's, as is the head.
        """

    def divergences(self, logits: Logits, indices: Sequence[int]) -> list[Tensor]:
        """Returns KL(T2 ‖ student) at temperature 1 of the samples `indices`, in nats, wherever T2 can be compared.

        `logits` are the student's at the counted positions of these samples, one sample after the other.
        """


@dataclass(frozen=True)
class HiddenStates:
    """T2's final hidden states in the student's own tokens: its exact logits are one matrix product away."""

    hidden_of: Callable[[int], Tensor]  # sample index → (counted tokens, T2's hidden)
    head: OutputHead  # T2's, cut to the rows both models have

    def loss(
        self, hidden: Tensor, head: OutputHead, batch: Batch, alpha: float, temperature: float
    ) -> Tensor:
        """Returns the exact loss against T2's distribution over the whole vocabulary; α = 0 asks T2 nothing."""
        teacher = self._states(batch.indices if alpha > 0 else ()).to(batch.labels.device)
        shared, share = head.cut(len(self.head)), len(batch.labels) / batch.step_tokens
        return share * distillation_loss(hidden, shared, teacher, self.head, batch.labels, alpha, temperature)

    def divergences(self, logits: Logits, indices: Sequence[int]) -> list[Tensor]:
        """Returns the KL divergence at every counted position."""
        parts = [self.hidden_of(index) for index in indices]
        teacher = torch.cat(parts).to(self.head.weight.device)
        divergence = kl_per_token(
            lambda rows: logits(rows, len(self.head)),
            lambda rows: self.head.logits(teacher[rows]),
            len(teacher),
        )
        return list(torch.split(divergence, [len(part) for part in parts]))

    def _states(self, indices: Sequence[int]) -> Tensor:
        return torch.cat([self.hidden_of(index) for index in indices] or [self.head.weight[:0]])

"""The comparison with a teacher of which only the k most likely tokens are known.

The teacher's distribution is coarsened to k + 1 outcomes: its k tokens, and a tail that holds the mass of all others.
The student's is coarsened in the same way, so the loss is a KL divergence between distributions, at most the whole
one. With the coarsened probabilities P (student) and Q (teacher) and temperature τ it is

    τ² · KL(softmax(log Q / τ) ‖ softmax(log P / τ))

At τ = 1 that is KL(Q ‖ P). At others the outcomes are tempered, not the tokens: the tail's own shape is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgewright_builder.train.cross_vocabulary import PROBABILITY_MIN, Comparison, Letters, folded


@dataclass(frozen=True)
class TopAnswers:
    """What a teacher said at some positions, most likely first."""

    tokens: Tensor  # (positions, k) int64: the teacher's tokens, −1 where it gave fewer
    log_probabilities: Tensor  # (positions, k) in nats at temperature 1

    def __getitem__(self, rows: slice | Tensor) -> TopAnswers:
        return TopAnswers(self.tokens[rows], self.log_probabilities[rows])


def top_k_kl(temperature: float, letters: Letters | None) -> Comparison[TopAnswers]:
    """Returns the comparison with top-k answers, in the student's tokens or in the letters of both vocabularies."""

    def compare(logits: Tensor, teacher: TopAnswers) -> tuple[Tensor, Tensor]:
        p = functional.softmax(logits.float(), dim=-1)
        events = p if letters is None else folded(p, letters.student, letters.count)
        q, named = _answers(teacher, None if letters is None else letters.teacher, events.shape[1])
        tail = events.masked_fill(named[:, :-1], 0).sum(dim=-1, keepdim=True)
        coarse = torch.cat([events, tail], dim=1).clamp_(min=PROBABILITY_MIN)
        log_p = functional.log_softmax(_among(named, coarse) / temperature, dim=-1)
        log_q = functional.log_softmax(_among(named, q) / temperature, dim=-1)
        target = log_q.exp()
        terms = target * (log_q - log_p).masked_fill_(target == 0, 0)
        ratio = (
            (log_p.exp() - target).mul_(temperature).div_(coarse)
        )  # dL/dP of each outcome, up to a constant
        of_event = torch.where(named[:, :-1], ratio[:, :-1], ratio[:, -1:])
        slope = p * (of_event if letters is None else of_event.index_select(1, letters.student))
        return temperature**2 * terms.sum(dim=-1), slope

    return compare


def _among(named: Tensor, probabilities: Tensor) -> Tensor:
    """Returns the outcomes' log-probabilities; events that are part of the tail have none."""
    return probabilities.log().masked_fill_(~named, -torch.inf)


def _answers(teacher: TopAnswers, letter: Tensor | None, events: int) -> tuple[Tensor, Tensor]:
    """Returns the teacher's coarsened distribution, (positions, events + 1), and which columns are its outcomes.

    The last column is the tail. Tokens of one letter are one outcome; one without a row in the student's head is tail.
    """
    event, known = teacher.tokens.clamp(min=0), teacher.tokens >= 0
    if letter is not None:  # rows that pad the teacher's head are no tokens of its vocabulary
        known &= event < len(letter)
        event = letter[event.clamp(max=len(letter) - 1)]
    event = torch.where(known & (event < events), event, events)
    q = torch.zeros(len(event), events + 1, device=event.device)
    q.scatter_add_(1, event, teacher.log_probabilities.float().exp())
    q[:, -1] = (1 - q[:, :-1].sum(dim=-1)).clamp_(min=0)
    named = torch.zeros_like(q, dtype=torch.bool).scatter_(1, event, True)
    named[:, -1] = True
    return q, named

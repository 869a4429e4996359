"""Distillation losses between two vocabularies, computed in chunks of tokens.

Student and teacher are compared where both have read the same text. Two comparisons of their distributions p and q:

    projected   τ² · KL(C·q ‖ W·p): P-KL of X-Token (arXiv 2605.21699). W and C count every token for one letter of
                the alphabet that both vocabularies share (`alignment.projection`), so both sides are distributions.
    uld         Σ_i |p_(i) − q_(i)| of the sorted probabilities, the shorter filled up with zeros
                (arXiv 2402.12030, equation 4). It knows no tokens and is the simple baseline.

A comparison takes the place of L_KL in equation (5) of `distillation_losses`: its mean over the compared positions,
plus the cross-entropy's mean over all counted ones. The gradient to the hidden states is computed in the same pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from edgewright_builder.train.distillation_losses import CHUNK_TOKENS
from edgewright_builder.train.output_head import OutputHead

PROBABILITY_MIN = torch.finfo(torch.float32).tiny
SLICE_TOKENS = 16384  # of T2's vocabulary at once: 42 MB of a head whose states have 640 numbers
HEADROOM = 60.0  # exp(60) is 1e26, and a float32 holds 3e38


@dataclass(frozen=True)
class Letters:
    """The letter of each token of both vocabularies."""

    student: Tensor  # (student's vocabulary,) int64
    teacher: Tensor  # (teacher's vocabulary,) int64
    count: int

    @cached_property
    def student_has_others(self) -> bool:
        """Whether the student has tokens of the letter "other", the last one."""
        return bool((self.student == self.count - 1).any())

    def to(self, device: torch.device) -> Letters:
        """Returns the same on another device."""
        return Letters(self.student.to(device), self.teacher.to(device), self.count)


Teacher = TypeVar("Teacher")
# (student's logits, (rows, vocabulary); what the teacher says there, such as its logits) → (the comparison of each row,
# its gradient to the student's logits).
Comparison = Callable[[Tensor, Teacher], tuple[Tensor, Tensor]]


def letter_distribution(head: OutputHead, states: Tensor, letters: Letters, temperature: float) -> Tensor:
    """Returns C·q, (rows, letters): what T2 says of each letter, from its final hidden states (rows, hidden).

    A slice of its vocabulary at a time: a head that is kept in 16 bits is widened slice by slice, and no rows ×
    vocabulary tensor is whole.
    """
    spread = states.new_zeros(len(states), letters.count, dtype=torch.float32)
    shift = None  # of the exponents; any will do that lets nothing overflow
    for start in range(0, len(letters.teacher), SLICE_TOKENS):
        tokens = slice(start, start + SLICE_TOKENS)
        logits = head.of(tokens, states.dtype).logits(states).float().div_(temperature)
        top = logits.amax(dim=-1, keepdim=True)
        shift = top if shift is None else shift
        if bool((top > shift + HEADROOM).any()):
            grown = torch.maximum(shift, top)
            spread.mul_((shift - grown).exp())
            shift = grown
        spread.index_add_(1, letters.teacher[tokens], logits.sub_(shift).exp_())
    return spread.div_(spread.sum(dim=-1, keepdim=True))


def projected_kl(letters: Letters, temperature: float) -> Comparison[Tensor]:
    """Returns the comparison τ² · KL(C·q ‖ W·p), in nats. It takes C·q of the teacher, and overwrites it."""

    def compare(logits: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        p = functional.softmax(logits.float() / temperature, dim=-1)
        projected = folded(p, letters.student, letters.count)
        if not letters.student_has_others:
            q = _without_others(q)
        projected.clamp_(min=PROBABILITY_MIN)
        divergence = temperature**2 * (torch.xlogy(q, q) - q * projected.log()).sum(dim=-1)
        ratio = q.div_(projected)  # dL/ds = τ · (p − p · (C·q / W·p) of the token's letter)
        slope = p.sub_(p * ratio.index_select(1, letters.student)).mul_(temperature)
        return divergence, slope

    return compare


def uld(temperature: float) -> Comparison[Tensor]:
    """Returns the L1 distance of the sorted probabilities."""

    def compare(logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
        p = functional.softmax(logits.float() / temperature, dim=-1)
        ranked, order = p.sort(dim=-1, descending=True)
        q = (
            functional.softmax(teacher_logits.float() / temperature, dim=-1)
            .sort(dim=-1, descending=True)
            .values
        )
        width = min(p.shape[1], q.shape[1])
        difference = ranked.clone()
        difference[:, :width] -= q[:, :width]
        distance = difference.abs().sum(dim=-1) + q[:, width:].sum(dim=-1)
        sign = torch.empty_like(p).scatter_(1, order, difference.sign_())
        slope = p * (sign - (p * sign).sum(dim=-1, keepdim=True)) / temperature
        return distance, slope

    return compare


def folded(probabilities: Tensor, letter: Tensor, letters: int) -> Tensor:
    """Returns (rows, letters): what each letter's tokens have together."""
    rows = probabilities.shape[0]
    return probabilities.new_zeros(rows, letters).index_add_(1, letter, probabilities)


def _without_others(q: Tensor) -> Tensor:
    """Returns T2's distribution given that its next token is one that the student has a letter for."""
    q[:, -1] = 0
    return q.div_(q.sum(dim=-1, keepdim=True).clamp_(min=PROBABILITY_MIN))


def _placed(slope: Tensor, here: Tensor | None, rows: int) -> Tensor:
    """Returns the slope at the rows `here`, and zeros at the others; None is all rows."""
    return slope if here is None else slope.new_zeros(rows, slope.shape[1]).index_copy_(0, here, slope)


class _ComparedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,  # (tokens, hidden)
        head: OutputHead,
        labels: Tensor,  # (tokens,)
        compared: Tensor,  # (positions,) rows of `hidden`, ascending
        teacher: Callable[[slice], Any],  # what it says at these positions
        compare: Comparison[Any],
        alpha: float,
        chunk_tokens: int,
    ) -> Tensor:
        tokens, positions = len(hidden), len(compared)
        gradient = torch.zeros_like(hidden)
        total = torch.zeros((), dtype=torch.float64)
        for start in range(0, tokens, chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            logits = head.logits(hidden[rows]).float()
            bend = head.bend(logits)
            slope: Tensor | None = None
            first, last = (
                int(torch.searchsorted(compared, edge)) for edge in (start, min(start + chunk_tokens, tokens))
            )
            if alpha > 0 and last > first:
                here = None if last - first == len(logits) else compared[first:last] - start
                values, towards_teacher = compare(
                    logits if here is None else logits[here], teacher(slice(first, last))
                )
                total += alpha / positions * values.sum().double().cpu()
                slope = _placed(towards_teacher.mul_(alpha / positions), here, len(logits))
            if alpha < 1:
                log_p = functional.log_softmax(logits, dim=-1)
                index = labels[rows].unsqueeze(1)
                total -= (1 - alpha) / tokens * log_p.gather(1, index).sum().double().cpu()
                p = log_p.exp_()
                p.scatter_add_(1, index, torch.full_like(index, -1, dtype=p.dtype))
                p.mul_((1 - alpha) / tokens)
                slope = p if slope is None else slope.add_(p)
            if slope is not None:
                gradient[rows] = head.pull_back(slope, bend)
        ctx.save_for_backward(gradient)
        return total.to(hidden.device, torch.float32)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0], None, None, None, None, None, None, None


def compared_loss(
    hidden: Tensor,
    head: OutputHead,
    labels: Tensor,
    compared: Tensor,
    teacher: Callable[[slice], Teacher],
    compare: Comparison[Teacher],
    alpha: float,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Tensor:
    """Returns α times the comparison's mean plus 1 − α times the cross-entropy's, differentiable in `hidden` only.

    hidden: (tokens, hidden); labels: (tokens,); compared: (positions,) the rows that are
    compared, ascending; teacher: positions → what the comparison takes of the teacher, asked for chunk by chunk.
    """
    if alpha == 1:  # rows that are not compared count for nothing
        hidden, labels = hidden[compared], labels[compared]
        compared = torch.arange(len(compared), device=compared.device)
    loss: Tensor = _ComparedLoss.apply(  # type: ignore[no-untyped-call]
        hidden, head, labels, compared, teacher, compare, alpha, chunk_tokens
    )
    return loss

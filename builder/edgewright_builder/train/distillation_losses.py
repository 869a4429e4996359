"""Distillation losses (arXiv 2601.09865, equations 1–5), computed in chunks of tokens.

With student logits s, teacher logits t, temperature τ and labels y, the student's distribution is
p = softmax(s/τ), the teacher's is q = softmax(t/τ), and

    L_CE = −log softmax(s)[y]                          (1)
    L_KL = τ² · Σ_i q(i) · log(q(i) / p(i))            (2–4)
    L    = α · L_KL + (1 − α) · L_CE                   (5)

averaged over the tokens. Logits come from hidden states by an output head. `distillation_loss` computes the gradient to
the hidden states in the same pass, ∂L/∂s = α·τ·(p − q) + (1 − α)·(softmax(s) − onehot(y)), so no tokens × vocabulary
tensor is longer than one chunk. In the code p is always the student's distribution and q always the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgewright_builder.train.output_head import OutputHead

CHUNK_TOKENS = 128  # of SmolLM2's 49k words: 25 MB a tensor


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Returns equation (4) per token, (tokens,), in nats: zero where the logits are equal.

    student_logits, teacher_logits: (tokens, vocabulary).
    """
    log_p = functional.log_softmax(student_logits.float() / temperature, dim=-1)
    log_q = functional.log_softmax(teacher_logits.float() / temperature, dim=-1)
    divergence = (log_q.exp() * (log_q - log_p)).sum(dim=-1)
    return temperature**2 * divergence


class _DistillationLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student_hidden: Tensor,  # (tokens, hidden)
        student_head: OutputHead,
        teacher_hidden: Tensor,  # (tokens, teacher's hidden)
        teacher_head: OutputHead,
        labels: Tensor,  # (tokens,)
        alpha: float,
        temperature: float,
    ) -> Tensor:
        tokens = student_hidden.shape[0]
        gradient = torch.empty_like(student_hidden)
        total = torch.zeros((), dtype=torch.float64)
        for start in range(0, tokens, CHUNK_TOKENS):
            rows = slice(start, start + CHUNK_TOKENS)
            logits = student_head.logits(student_hidden[rows]).float()
            bend = student_head.bend(logits)
            slopes = []
            if alpha < 1:
                value, slope = _cross_entropy(logits, labels[rows])
                total += (1 - alpha) * value
                slopes.append(slope.mul_(1 - alpha))
            if alpha > 0:
                teacher_logits = teacher_head.logits(teacher_hidden[rows]).float()
                value, slope = _divergence_and_slope(logits, teacher_logits, temperature)
                total += alpha * temperature**2 * value
                slopes.append(slope.mul_(alpha * temperature))
            slope = slopes[0] if len(slopes) == 1 else slopes[0].add_(slopes[1])
            gradient[rows] = student_head.pull_back(slope, bend)
        ctx.save_for_backward(gradient.div_(tokens))
        return (total / tokens).to(student_hidden.device, torch.float32)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0], None, None, None, None, None, None


def _cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns equation (1) summed over the tokens, in float64 on the CPU, and its slope softmax(s) − onehot(y)."""
    log_p, index = functional.log_softmax(logits, dim=-1), labels.unsqueeze(1)
    value = -log_p.gather(1, index).sum().double().cpu()
    p = log_p.exp_()
    return value, p.scatter_add_(1, index, torch.full_like(index, -1, dtype=p.dtype))


def _divergence_and_slope(
    logits: Tensor, teacher_logits: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Returns Σ_i q(i)·log(q(i) / p(i)) summed over the tokens, in float64 on the CPU, and p − q.

    Both logits are overwritten where the temperature is not 1: a chunk of them is the largest thing a step holds.
    """
    if temperature != 1:
        logits, teacher_logits = logits.div_(temperature), teacher_logits.div_(temperature)
    log_p, log_q = functional.log_softmax(logits, dim=-1), functional.log_softmax(teacher_logits, dim=-1)
    del logits, teacher_logits
    q = log_q.exp()
    value = torch.linalg.vecdot(q, log_q.sub_(log_p)).sum(dtype=torch.float64).cpu()
    return value, log_p.exp_().sub_(q)


def distillation_loss(
    student_hidden: Tensor,
    student_head: OutputHead,
    teacher_hidden: Tensor,
    teacher_head: OutputHead,
    labels: Tensor,
    alpha: float,
    temperature: float,
) -> Tensor:
    """Returns equation (5) averaged over tokens, a scalar that is differentiable in `student_hidden` only.

    student_hidden: (tokens, hidden); teacher_hidden: (tokens, teacher_hidden); the heads have one vocabulary;
    labels: (tokens,) token ids; alpha in [0, 1]; temperature > 0.
    """
    loss: Tensor = _DistillationLoss.apply(  # type: ignore[no-untyped-call]
        student_hidden, student_head, teacher_hidden, teacher_head, labels, alpha, temperature
    )
    return loss


@torch.inference_mode()
def kl_per_token(
    student_logits: Callable[[slice], Tensor], teacher_logits: Callable[[slice], Tensor], tokens: int
) -> Tensor:
    """Returns KL(q ‖ p) at τ = 1 of each token, (tokens,), in nats: comparable between all trials.

    student_logits, teacher_logits: rows → (rows, vocabulary), asked for one chunk at a time.
    """
    chunks = []
    for start in range(0, tokens, CHUNK_TOKENS):
        rows = slice(start, start + CHUNK_TOKENS)
        teacher = teacher_logits(rows)
        chunks.append(kl_divergence(student_logits(rows).to(teacher.device), teacher, temperature=1.0))
    return torch.cat(chunks)

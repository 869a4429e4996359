from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from edgewright_builder.train.distillation_losses import (
    CHUNK_TOKENS,
    distillation_loss,
    kl_divergence,
    kl_per_token,
)
from edgewright_builder.train.output_head import OutputHead

TOKENS, VOCABULARY, HIDDEN = CHUNK_TOKENS + 37, 61, 16


Caps = tuple[float | None, float | None]
Five = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def tensors(seed: int, tokens: int = TOKENS) -> Five:
    torch.manual_seed(seed)
    hidden = torch.randn(tokens, HIDDEN, requires_grad=True)
    head, teacher_head = torch.randn(VOCABULARY, HIDDEN), torch.randn(VOCABULARY, HIDDEN + 3)
    teacher_hidden = torch.randn(tokens, HIDDEN + 3)
    return hidden, head, teacher_hidden, teacher_head, torch.randint(VOCABULARY, (tokens,))


def loss_of(values: Five, alpha: float, temperature: float, caps: Caps = (None, None)) -> torch.Tensor:
    hidden, head, teacher_hidden, teacher_head, labels = values
    heads = OutputHead(head, caps[0]), OutputHead(teacher_head, caps[1])
    return distillation_loss(hidden, heads[0], teacher_hidden, heads[1], labels, alpha, temperature)


def dense_loss(
    hidden: torch.Tensor, head: torch.Tensor, teacher_hidden: torch.Tensor, teacher_head: torch.Tensor,
    labels: torch.Tensor, alpha: float, temperature: float, caps: Caps = (None, None),
) -> torch.Tensor:  # fmt: skip
    """Equations (1) to (5) as torch writes them, every logit at once."""
    logits, teacher_logits = (
        product if cap is None else cap * torch.tanh(product / cap)
        for product, cap in zip((hidden @ head.T, teacher_hidden @ teacher_head.T), caps, strict=True)
    )
    divergence = functional.kl_div(
        functional.log_softmax(logits / temperature, -1), functional.log_softmax(teacher_logits / temperature, -1),
        reduction="batchmean", log_target=True,
    )  # fmt: skip
    return alpha * temperature**2 * divergence + (1 - alpha) * functional.cross_entropy(logits, labels)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("temperature", [0.51, 1.0, 6.5])
def test_the_chunked_loss_and_its_gradient_equal_the_dense_ones(alpha: float, temperature: float) -> None:
    values = tensors(0)
    chunked = loss_of(values, alpha, temperature)
    (gradient,) = torch.autograd.grad(chunked * 3, values[0])
    dense = dense_loss(*values, alpha, temperature)
    (expected,) = torch.autograd.grad(dense * 3, values[0])
    torch.testing.assert_close(chunked, dense, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("caps", [(3.0, None), (None, 2.0), (4.0, 5.0)])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_the_loss_and_its_gradient_go_through_soft_capped_logits(alpha: float, caps: Caps) -> None:
    values = tensors(4)
    chunked, dense = loss_of(values, alpha, 1.5, caps), dense_loss(*values, alpha, 1.5, caps)
    torch.testing.assert_close(chunked, dense, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(value, values[0])[0] for value in (chunked, dense)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


@given(seed=st.integers(0, 2**20), temperature=st.floats(0.5, 8.0))
@settings(max_examples=25, deadline=None)
def test_a_divergence_is_never_negative_and_zero_for_equal_logits(seed: int, temperature: float) -> None:
    torch.manual_seed(seed)
    student, teacher = torch.randn(2, 5, VOCABULARY) * 3
    assert float(kl_divergence(student, teacher, temperature).min()) >= -1e-5
    torch.testing.assert_close(
        kl_divergence(teacher, teacher, temperature), torch.zeros(5), atol=1e-4, rtol=0
    )


def test_a_divergence_does_not_care_about_a_constant_added_to_the_logits() -> None:
    torch.manual_seed(1)
    student, teacher = torch.randn(2, 5, VOCABULARY)
    torch.testing.assert_close(
        kl_divergence(student + 7, teacher - 3, 2.0),
        kl_divergence(student, teacher, 2.0),
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_per_token_divergence_averages_to_the_loss_at_temperature_one() -> None:
    hidden, head, teacher_hidden, teacher_head, labels = tensors(2)
    loss = loss_of((hidden, head, teacher_hidden, teacher_head, labels), 1.0, 1.0)
    per_token = kl_per_token(
        lambda rows: hidden.detach()[rows] @ head.T,
        lambda rows: teacher_hidden[rows] @ teacher_head.T,
        TOKENS,
    )
    assert per_token.shape == (TOKENS,)
    torch.testing.assert_close(per_token.mean(), loss.detach(), rtol=1e-5, atol=1e-6)

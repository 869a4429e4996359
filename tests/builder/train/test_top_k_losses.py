"""The loss against a teacher's k most likely tokens and a tail."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from edgewright_builder.train.aligned_knowledge import Positions, TopK
from edgewright_builder.train.cross_vocabulary import Letters
from edgewright_builder.train.distillation_losses import kl_divergence
from edgewright_builder.train.output_head import OutputHead
from edgewright_builder.train.packing import pack
from edgewright_builder.train.samples import Sample
from edgewright_builder.train.top_k_losses import TopAnswers, top_k_kl

ROWS, VOCABULARY, TEACHER = 9, 30, 44


def answers(teacher: torch.Tensor, k: int) -> TopAnswers:
    top = functional.log_softmax(teacher, -1).topk(k)
    return TopAnswers(top.indices, top.values)


def dense(
    logits: torch.Tensor, teacher: torch.Tensor, k: int, temperature: float, letters: Letters | None
) -> torch.Tensor:
    """Row by row, outcome by outcome."""
    values = []
    for row in range(len(logits)):
        p, q = logits[row].softmax(-1), teacher[row].softmax(-1)
        top = q.topk(k).indices
        theirs = top if letters is None else letters.teacher[top]
        ours = torch.arange(len(p)) if letters is None else letters.student
        outcomes = torch.unique(theirs)
        target = torch.stack([q[top][theirs == outcome].sum() for outcome in outcomes])
        student = torch.stack([p[ours == outcome].sum() for outcome in outcomes])
        target = torch.cat([target, 1 - target.sum(0, keepdim=True)])
        student = torch.cat([student, 1 - student.sum(0, keepdim=True)])
        log_q = functional.log_softmax(target.log() / temperature, -1)
        log_p = functional.log_softmax(student.log() / temperature, -1)
        values.append(temperature**2 * (log_q.exp() * (log_q - log_p)).sum())
    return torch.stack(values)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("k", [1, 5])
def test_the_divergence_and_its_gradient_equal_the_dense_ones(
    k: int, temperature: float, aligned: bool
) -> None:
    torch.manual_seed(k)
    size = TEACHER if aligned else VOCABULARY
    logits, teacher = torch.randn(ROWS, VOCABULARY, requires_grad=True), 2 * torch.randn(ROWS, size)
    letters = (
        Letters(torch.arange(VOCABULARY) % 12, torch.arange(TEACHER) % 12, 12) if aligned else None
    )  # several tokens count for one letter
    values, slope = top_k_kl(temperature, letters)(logits.detach(), answers(teacher, k))
    expected = dense(logits, teacher, k, temperature, letters)
    torch.testing.assert_close(values, expected.detach(), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(slope, gradient, rtol=1e-3, atol=1e-5)


@given(seed=st.integers(0, 2**20), k=st.integers(1, VOCABULARY))
@settings(max_examples=30, deadline=None)
def test_the_coarsened_divergence_is_between_zero_and_the_whole_one_and_reaches_it(seed: int, k: int) -> None:
    torch.manual_seed(seed)
    logits, teacher = 2 * torch.randn(2, ROWS, VOCABULARY)
    whole = kl_divergence(logits, teacher, 1.0)
    values, _ = top_k_kl(1.0, None)(logits, answers(teacher, k))
    assert bool((values >= -1e-5).all() and (values <= whole + 1e-4).all())
    if k == VOCABULARY:
        torch.testing.assert_close(values, whole, rtol=1e-3, atol=1e-4)


def test_a_server_that_names_fewer_tokens_leaves_the_rest_to_the_tail() -> None:
    torch.manual_seed(0)
    logits, teacher = torch.randn(2, 1, VOCABULARY)
    three, five = answers(teacher, 3), answers(teacher, 5)
    tokens = five.tokens.clone()
    tokens[:, 3:] = -1
    ours, slope = top_k_kl(2.0, None)(logits, TopAnswers(tokens, five.log_probabilities))
    expected = top_k_kl(2.0, None)(logits, three)
    torch.testing.assert_close((ours, slope), expected)


def test_a_row_that_pads_the_teacher_s_head_is_tail_and_no_letter() -> None:
    letters = Letters(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2]), 3)
    logits = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    values = torch.log(torch.tensor([[0.5, 0.3]]))
    padded = top_k_kl(1.0, letters)(logits, TopAnswers(torch.tensor([[0, 7]]), values))[0]
    unnamed = top_k_kl(1.0, letters)(logits, TopAnswers(torch.tensor([[0, -1]]), values))[0]
    assert torch.equal(padded, unnamed)


def test_top_k_knowledge_is_trained_and_judged_through_the_one_interface() -> None:
    torch.manual_seed(1)
    samples = [Sample(tuple(range(6)), 1), Sample(tuple(range(4)), 0)]
    teacher = [torch.randn(sample.counted_tokens, VOCABULARY) for sample in samples]
    every = Positions(samples, lambda index: torch.arange(samples[index].counted_tokens))
    knowledge = TopK(every, lambda index: answers(teacher[index], VOCABULARY), VOCABULARY, None)
    hidden, head = torch.randn(7, 8, requires_grad=True), torch.randn(VOCABULARY + 2, 8)
    batch = pack(samples, [1, 0], torch.device("cpu"), torch.float32)
    loss = knowledge.loss(hidden, OutputHead(head), batch, 1.0, 1.0)
    logits = hidden.detach() @ head[:VOCABULARY].T
    whole = kl_divergence(logits, torch.cat([teacher[1], teacher[0]]), 1.0)
    torch.testing.assert_close(loss.detach(), whole.mean(), rtol=1e-3, atol=1e-4)
    parts = knowledge.divergences(lambda rows, vocabulary: logits[rows, :vocabulary], [1, 0])
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-3, atol=1e-4)

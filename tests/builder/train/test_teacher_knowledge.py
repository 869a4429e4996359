"""Every form of T2's knowledge is held against a student through one interface."""

from __future__ import annotations

import pytest
import torch

from edgewright_builder.train.distillation_losses import distillation_loss, kl_divergence
from edgewright_builder.train.output_head import OutputHead
from edgewright_builder.train.packing import pack
from edgewright_builder.train.samples import Sample
from edgewright_builder.train.teacher_knowledge import HiddenStates

HIDDEN, TEACHER_HIDDEN, VOCABULARY = 8, 12, 40
SAMPLES = [Sample(tuple(range(1, 9)), 2), Sample(tuple(range(20, 26)), 0)]


def states(index: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(index)
    return torch.randn(SAMPLES[index].counted_tokens, TEACHER_HIDDEN, generator=generator)


def student() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    tokens = sum(sample.counted_tokens for sample in SAMPLES)
    hidden = torch.randn(tokens, HIDDEN, generator=generator, requires_grad=True)
    return hidden, torch.randn(VOCABULARY + 3, HIDDEN, generator=generator)  # a head padded higher than T2's


@pytest.mark.parametrize(("alpha", "temperature"), [(1.0, 1.0), (0.3, 2.0), (0.0, 1.0)])
def test_cached_hidden_states_give_bit_for_bit_the_loss_of_the_equations(
    alpha: float, temperature: float
) -> None:
    (hidden, head), teacher_head = student(), torch.randn(VOCABULARY, TEACHER_HIDDEN)
    batch = pack(SAMPLES, [1, 0], torch.device("cpu"), torch.float32)
    loss = HiddenStates(states, OutputHead(teacher_head)).loss(
        hidden, OutputHead(head), batch, alpha, temperature
    )
    teacher = torch.cat([states(1), states(0)])
    heads = OutputHead(head[:VOCABULARY]), OutputHead(teacher_head)
    expected = distillation_loss(hidden, heads[0], teacher, heads[1], batch.labels, alpha, temperature)
    assert torch.equal(loss, expected)
    gradients = [torch.autograd.grad(value, hidden)[0] for value in (loss, expected)]
    assert torch.equal(*gradients)


def test_a_loss_of_the_labels_alone_asks_the_teacher_nothing() -> None:
    def never(index: int) -> torch.Tensor:
        raise AssertionError(f"the teacher was asked about sample {index}")

    (hidden, head), teacher_head = student(), torch.randn(VOCABULARY, TEACHER_HIDDEN)
    batch = pack(SAMPLES, [1, 0], torch.device("cpu"), torch.float32)
    loss = HiddenStates(never, OutputHead(teacher_head)).loss(
        hidden, OutputHead(head), batch, alpha=0.0, temperature=1.0
    )
    expected = torch.nn.functional.cross_entropy(hidden @ head[:VOCABULARY].T, batch.labels)
    torch.testing.assert_close(loss, expected)


def test_divergences_come_sample_by_sample() -> None:
    (hidden, head), teacher_head = student(), torch.randn(VOCABULARY, TEACHER_HIDDEN)
    logits = hidden.detach() @ head.T
    knowledge = HiddenStates(states, OutputHead(teacher_head))
    parts = knowledge.divergences(lambda rows, vocabulary: logits[rows, :vocabulary], [1, 0])
    assert [len(part) for part in parts] == [5, 5]
    expected = kl_divergence(logits[:5, :VOCABULARY], states(1) @ teacher_head.T, temperature=1.0)
    torch.testing.assert_close(parts[0], expected)

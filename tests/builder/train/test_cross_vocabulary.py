"""The losses between two vocabularies, against what torch computes with every probability at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from edgewright_builder.train.aligned_knowledge import AlignedStates, Positions
from edgewright_builder.train.cross_vocabulary import (
    Comparison,
    Letters,
    compared_loss,
    letter_distribution,
    projected_kl,
    uld,
)
from edgewright_builder.train.output_head import OutputHead
from edgewright_builder.train.packing import pack
from edgewright_builder.train.samples import Sample
from edgewright_builder.train.teacher_knowledge import HiddenStates

TOKENS, HIDDEN, STUDENT, TEACHER, LETTERS = 53, 12, 40, 70, 31
CHUNK = 16


def letters(seed: int = 0) -> Letters:
    """Every letter has a token on both sides."""
    generator = torch.Generator().manual_seed(seed)
    sides = []
    for size in (STUDENT, TEACHER):
        rest = torch.randint(LETTERS, (size - LETTERS,), generator=generator)
        sides.append(torch.cat([torch.randperm(LETTERS, generator=generator), rest]))
    return Letters(sides[0], sides[1], LETTERS)


def matrix(letter: torch.Tensor) -> torch.Tensor:
    """W or C written out, (letters, vocabulary)."""
    return functional.one_hot(letter, LETTERS).T.float()


def spread(logits: torch.Tensor, letter: torch.Tensor, count: int, temperature: float) -> torch.Tensor:
    """C·q of T2's logits."""
    return functional.softmax(logits / temperature, -1) @ functional.one_hot(letter, count).float()


Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def tensors(seed: int) -> Tensors:
    """The student's hidden states and head, labels, the compared rows, and T2's logits at them."""
    torch.manual_seed(seed)
    compared = torch.randperm(TOKENS)[: TOKENS // 2].sort().values
    hidden, head = torch.randn(TOKENS, HIDDEN, requires_grad=True), torch.randn(STUDENT, HIDDEN)
    return hidden, head, torch.randint(STUDENT, (TOKENS,)), compared, 2 * torch.randn(len(compared), TEACHER)


def dense_projected(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    p, q = (functional.softmax(side / temperature, -1) for side in (logits, teacher))
    projected, target = p @ matrix(letters().student).T, q @ matrix(letters().teacher).T
    return temperature**2 * (target * (target.log() - projected.log())).sum(-1)


def dense_uld(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    p, q = (
        functional.softmax(side / temperature, -1).sort(-1, descending=True).values
        for side in (logits, teacher)
    )
    return (functional.pad(p, (0, TEACHER - STUDENT)) - q).abs().sum(-1)


@pytest.mark.parametrize("method", ["projected", "uld"])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
def test_the_chunked_comparison_and_its_gradient_equal_the_dense_ones(
    method: str, alpha: float, temperature: float
) -> None:
    hidden, head, labels, compared, teacher = tensors(0)
    compare: Comparison[torch.Tensor] = (
        projected_kl(letters(), temperature) if method == "projected" else uld(temperature)
    )
    says = spread(teacher, letters().teacher, LETTERS, temperature) if method == "projected" else teacher
    chunked = compared_loss(
        hidden,
        OutputHead(head),
        labels,
        compared,
        lambda rows: says[rows].clone(),
        compare,
        alpha,
        chunk_tokens=CHUNK,
    )
    (gradient,) = torch.autograd.grad(chunked * 3, hidden)
    logits = hidden @ head.T
    dense_of = dense_projected if method == "projected" else dense_uld
    dense = alpha * dense_of(logits[compared], teacher, temperature).mean()
    dense = dense + (1 - alpha) * functional.cross_entropy(logits, labels)
    (expected,) = torch.autograd.grad(dense * 3, hidden)
    torch.testing.assert_close(chunked, dense, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@given(seed=st.integers(0, 2**20), scale=st.sampled_from([0.1, 3.0, 300.0]), temperature=st.floats(0.5, 8.0))
@settings(max_examples=25, deadline=None)
def test_slices_of_a_teachers_vocabulary_spread_its_probability_as_the_whole_does(
    seed: int, scale: float, temperature: float
) -> None:
    torch.manual_seed(seed)
    states, weight = torch.randn(7, HIDDEN), (scale * torch.randn(TEACHER, HIDDEN)).bfloat16()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgewright_builder.train.cross_vocabulary.SLICE_TOKENS", 13)
        says = letter_distribution(OutputHead(weight, softcap=200.0), states, letters(seed), temperature)
    whole = OutputHead(weight.float(), softcap=200.0).logits(states)
    torch.testing.assert_close(
        says, spread(whole, letters(seed).teacher, LETTERS, temperature), rtol=1e-4, atol=1e-7
    )


@given(seed=st.integers(0, 2**20), temperature=st.floats(0.5, 8.0))
@settings(max_examples=25, deadline=None)
def test_a_projected_divergence_is_never_negative(seed: int, temperature: float) -> None:
    torch.manual_seed(seed)
    student, teacher = 3 * torch.randn(7, STUDENT), 3 * torch.randn(7, TEACHER)
    says = spread(teacher, letters(seed).teacher, LETTERS, temperature)
    values, slope = projected_kl(letters(seed), temperature)(student, says)
    assert float(values.min()) >= -1e-5
    torch.testing.assert_close(slope.sum(-1), torch.zeros(7), atol=1e-4, rtol=0)  # logits have no origin


def test_a_student_that_spreads_its_probability_as_the_teacher_does_has_nothing_left_to_learn() -> None:
    student, teacher = torch.zeros(1, 3), torch.zeros(1, 4)
    same = Letters(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1, 1]), 2)
    teacher[0] = torch.log(torch.tensor([2 / 3, 1 / 6, 1 / 12, 1 / 12]))
    values, slope = projected_kl(same, 1.0)(student, spread(teacher, same.teacher, 2, 1.0))
    torch.testing.assert_close(values, torch.zeros(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(slope, torch.zeros(1, 3), atol=1e-6, rtol=0)


def test_a_student_certain_of_what_the_teacher_excludes_stays_finite() -> None:
    student, teacher = torch.tensor([[1000.0, 0.0]]), torch.tensor([[0.0, 1000.0]])
    both = Letters(torch.arange(2), torch.arange(2), 2)
    values, slope = projected_kl(both, 0.5)(student, spread(teacher, both.teacher, 2, 0.5))
    assert bool(torch.isfinite(values).all() and torch.isfinite(slope).all())
    assert float(values) > 10


@pytest.mark.parametrize(("alpha", "temperature"), [(1.0, 1.0), (0.3, 2.0)])
def test_a_teacher_of_the_students_own_vocabulary_forced_through_the_projection_gives_the_shared_loss(
    alpha: float, temperature: float
) -> None:
    torch.manual_seed(3)
    samples = [Sample(tuple(torch.randint(STUDENT, (9,)).tolist()), 3), Sample(tuple(range(20)), 0)]
    states = [torch.randn(sample.counted_tokens, HIDDEN + 2) for sample in samples]
    head, teacher_head = torch.randn(STUDENT, HIDDEN), torch.randn(STUDENT, HIDDEN + 2)
    hidden = torch.randn(24, HIDDEN, requires_grad=True)
    batch = pack(samples, [1, 0], torch.device("cpu"), torch.float32)
    shared = HiddenStates(states.__getitem__, OutputHead(teacher_head))
    own = Letters(torch.arange(STUDENT), torch.arange(STUDENT), STUDENT)
    every = Positions(samples, lambda index: torch.arange(samples[index].counted_tokens))
    forced = AlignedStates(every, states.__getitem__, OutputHead(teacher_head), own, "projected")
    losses = [side.loss(hidden, OutputHead(head), batch, alpha, temperature) for side in (shared, forced)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(loss, hidden)[0] for loss in losses]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)
    logits = hidden.detach() @ head.T
    parts = [
        side.divergences(lambda rows, vocabulary: logits[rows, :vocabulary], [1, 0])
        for side in (shared, forced)
    ]
    for ours, theirs in zip(*parts, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_what_the_student_has_no_token_for_counts_for_nothing() -> None:
    without, with_other = torch.tensor([[0.3, -0.2, 0.0]]), torch.tensor([[0.3, -0.2, 0.0, 5.0]])
    student = torch.tensor([[0.1, 0.2, 0.3]])
    compare = projected_kl(Letters(torch.arange(3), torch.tensor([0, 1, 2, 3]), 4), 1.0)
    expected = projected_kl(Letters(torch.arange(3), torch.arange(3), 4), 1.0)(
        student, spread(without, torch.arange(3), 4, 1.0)
    )
    for value, wanted in zip(
        compare(student, spread(with_other, torch.arange(4), 4, 1.0)), expected, strict=True
    ):
        torch.testing.assert_close(value, wanted)


def test_samples_without_a_common_boundary_leave_the_cross_entropy() -> None:
    samples = [Sample((1, 2, 3), 0)]
    none = Positions(samples, lambda _: torch.zeros(0, dtype=torch.long))
    nothing = AlignedStates(
        none,
        lambda _: torch.zeros(0, HIDDEN),
        OutputHead(torch.randn(TEACHER, HIDDEN)),
        letters(),
        "projected",
    )
    hidden, head = torch.randn(2, HIDDEN, requires_grad=True), torch.randn(STUDENT, HIDDEN)
    batch = pack(samples, [0], torch.device("cpu"), torch.float32)
    loss = nothing.loss(hidden, OutputHead(head), batch, alpha=0.5, temperature=1.0)
    torch.testing.assert_close(loss, 0.5 * functional.cross_entropy(hidden @ head.T, batch.labels))
    assert float(nothing.loss(hidden.detach(), OutputHead(head), batch, alpha=1.0, temperature=1.0)) == 0
    assert [len(part) for part in nothing.divergences(lambda *_: torch.zeros(0, STUDENT), [0])] == [0]


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_the_parts_of_a_step_add_up_to_its_loss(alpha: float) -> None:
    torch.manual_seed(5)
    samples = [Sample(tuple(torch.randint(STUDENT, (9,)).tolist()), 3), Sample(tuple(range(20)), 0)]
    positions = [torch.tensor([0, 3]), torch.arange(0, 18, 2)]
    states = [torch.randn(len(places), HIDDEN) for places in positions]
    knowledge = AlignedStates(
        Positions(samples, positions.__getitem__),
        states.__getitem__,
        OutputHead(torch.randn(TEACHER, HIDDEN)),
        letters(),
        "projected",
    )
    head, hidden = OutputHead(torch.randn(STUDENT, HIDDEN)), torch.randn(24, HIDDEN)
    cpu, split = torch.device("cpu"), samples[0].counted_tokens
    whole = knowledge.loss(hidden, head, pack(samples, [0, 1], cpu, torch.float32), alpha, 1.0)
    parts = [
        knowledge.loss(
            rows,
            head,
            replace(pack(samples, [index], cpu, torch.float32), step=(0, 1), step_tokens=24),
            alpha,
            1.0,
        )
        for index, rows in enumerate((hidden[:split], hidden[split:]))
    ]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-5, atol=1e-6)

"""Packs: what samples have in common is read once, and every state and gradient is that of the samples alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_builder.recipe.hyperparameters import Hyperparameters
from edgewright_builder.scoring.tokens import shared_tokens
from edgewright_builder.train import packing
from edgewright_builder.train.epoch import DistillationData, loss_on
from edgewright_builder.train.lora import add_lora
from edgewright_builder.train.output_head import OutputHead
from edgewright_builder.train.packing import Layout, counted_hidden, layout_for, pack, pad
from edgewright_builder.train.samples import Sample
from edgewright_builder.train.teacher_knowledge import HiddenStates
from tests.support.tiny_models import tiny_model

CPU = torch.device("cpu")
TOKENS = st.lists(st.integers(0, 383), min_size=1, max_size=12)


@st.composite
def sample_lists(draw: st.DrawFn) -> list[Sample]:
    """Samples that begin alike or not, some of them equal, each with its own first counted position."""
    beginning = draw(st.lists(st.integers(0, 383), max_size=10))
    made = []
    for rest in draw(st.lists(TOKENS, min_size=1, max_size=6)):
        tokens = (*beginning, *rest, 3)
        made.append(Sample(tokens, draw(st.integers(0, len(tokens) - 2))))
    return [*made, *draw(st.lists(st.sampled_from(made), max_size=2))]


def plain_states(model: Any, samples: Sequence[Sample]) -> torch.Tensor:
    """The states by their definition: each sample read alone."""
    hidden = [model.model(input_ids=torch.tensor([one.tokens])).last_hidden_state[0] for one in samples]
    return torch.cat([states[one.first : -1] for states, one in zip(hidden, samples, strict=True)])


@given(sample_lists(), st.integers(8, 60))
@settings(max_examples=60, deadline=None)
def test_packed_states_are_those_of_each_sample_alone(samples: list[Sample], pack_tokens: int) -> None:
    model = tiny_model(1)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "PACK_TOKENS", pack_tokens)
        batches = list(layout_for(model, samples, 0).batches(range(len(samples))))
        states = torch.cat([counted_hidden(model, batch) for batch in batches])
        torch.testing.assert_close(states, plain_states(model, samples), rtol=1e-4, atol=1e-4)
    labels = [token for sample in samples for token in sample.tokens[sample.first + 1 :]]
    assert torch.cat([batch.labels for batch in batches]).tolist() == labels
    assert [index for batch in batches for index in batch.indices] == list(range(len(samples)))
    for batch in batches:
        assert len(batch.indices) == 1 or batch.inputs["input_ids"].numel() <= pack_tokens


def test_what_samples_have_in_common_is_read_once_and_their_last_token_not_at_all() -> None:
    samples = [Sample((1, 2, 3, 4, 5), 2), Sample((1, 2, 3, 9, 8, 7), 2)]
    assert pack(samples, (0, 1), CPU, torch.float32).inputs["input_ids"].tolist() == [[1, 2, 3, 4, 9, 8]]


def test_an_equal_sample_costs_nothing_but_its_logits() -> None:
    batch = pack([Sample((1, 2, 3, 4), 1)] * 3, (0, 1, 2), CPU, torch.float32)
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3]]
    assert batch.counted.tolist() == [1, 2] * 3


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=5), min_size=1, max_size=4))
def test_the_common_beginning_leaves_each_sequence_its_last_token(sequences: list[list[int]]) -> None:
    shared = shared_tokens(sequences)
    beginnings = {tuple(tokens[:shared]) for tokens in sequences}
    assert len(beginnings) == 1
    assert all(shared < len(tokens) for tokens in sequences)
    longer = {tuple(tokens[: shared + 1]) for tokens in sequences}
    assert len(longer) > 1 or any(len(tokens) == shared + 1 for tokens in sequences)


def material(samples: list[Sample]) -> DistillationData:
    torch.manual_seed(3)
    states = {index: torch.randn(sample.counted_tokens, 32) for index, sample in enumerate(samples)}
    return DistillationData(
        samples, (), (), HiddenStates(states.__getitem__, OutputHead(torch.randn(384, 32))), 0
    )


def gradients(model: Any, data: DistillationData) -> tuple[float, list[torch.Tensor]]:
    total = 0.0
    for part in loss_on(model.base_model.model, data, 0.7, 1.3)(range(len(data.samples))):
        part.backward()  # type: ignore[no-untyped-call]
        total += float(part.detach())
    return total, [each.grad for each in model.parameters() if each.requires_grad and each.grad is not None]


@pytest.mark.parametrize("pack_tokens", [12, 40, 1000])
def test_loss_and_gradients_of_packs_are_those_of_padded_rows(
    monkeypatch: pytest.MonkeyPatch, pack_tokens: int
) -> None:
    beginning = (7, 8, 9)
    samples = [Sample((*beginning, *range(20 + n, 26 + 2 * n)), min(n, 3)) for n in range(6)]
    data = material(samples)
    results = []
    for packs in (True, False):
        model = add_lora(tiny_model(1).__class__(tiny_model(1).config), CHOICE, seed=0)
        model.load_state_dict(_weights(model), strict=True)
        monkeypatch.setattr(packing, "PACK_TOKENS", pack_tokens)
        monkeypatch.setattr(packing, "_follows_masks", lambda _, packs=packs: packs)
        results.append(gradients(model, data))
    (loss, grads), (expected_loss, expected) = results
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert len(grads) == len(expected) > 0
    for gradient, reference in zip(grads, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-6)


CHOICE = Hyperparameters("adam", 1e-3, 0.0, 8, 2.0, 1.0, 1.0)


def _weights(model: Any) -> dict[str, torch.Tensor]:
    """Values for every parameter that follow from its name's place; LoRA's B is not zero, so that all gradients are."""
    torch.manual_seed(4)
    return {name: 0.2 * torch.randn_like(value) for name, value in model.state_dict().items()}


class Deaf(torch.nn.Module):
    """A model that ignores the mask it is given."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def get_decoder(self) -> Any:
        def decoder(attention_mask: torch.Tensor, **inputs: Any) -> Any:
            return self.model.model(**inputs)

        return decoder


def test_a_model_that_ignores_masks_gets_padded_rows() -> None:
    samples = [Sample((1, 2, 3, 4), 1), Sample((1, 2, 5), 0)]
    assert layout_for(tiny_model(1), samples, 0).packs
    layout = layout_for(Deaf(tiny_model(1)), samples, 0)
    assert not layout.packs
    (batch,) = layout.batches((0, 1))
    assert torch.equal(batch.inputs["input_ids"], pad(samples, (0, 1), 0, CPU).inputs["input_ids"])


def test_samples_beyond_an_attention_window_are_padded() -> None:
    samples = [Sample(tuple(range(12)), 0)]
    model = tiny_model(1)
    for window, packs in ((12, True), (11, False)):
        model.config.sliding_window = window
        try:
            assert layout_for(model, samples, 0).packs is packs
        finally:
            del model.config.sliding_window


def test_padded_rows_count_the_same_positions() -> None:
    samples = [Sample((1, 2, 3, 4), 1), Sample((1, 2, 5), 0)]
    layout = Layout(samples, 0, CPU, torch.float32, packs=False)
    packed = replace(layout, packs=True)
    with torch.inference_mode():
        states = [
            torch.cat([counted_hidden(tiny_model(1), batch) for batch in each.batches((0, 1))])
            for each in (layout, packed)
        ]
    torch.testing.assert_close(states[0], states[1], rtol=1e-4, atol=1e-4)

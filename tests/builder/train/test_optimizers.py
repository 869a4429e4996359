from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgewright_builder.train.optimizers import (
    drop_vanishing_gradients,
    learning_rate_factor,
    make_optimizer,
    optimizer_phases,
)


def test_a_muon_step_has_singular_values_near_one_before_its_scale() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(32, 96))
    weight.grad = torch.randn(32, 96)
    make_optimizer("muon", [weight], learning_rate=1.0, weight_decay=0.0).step()
    # match_rms_adamw multiplies by 0.2 · sqrt(max(rows, columns)); five Newton-Schulz steps leave 0.7 to 1.2.
    singular_values = torch.linalg.svdvals(weight.detach()) / (0.2 * 96**0.5)
    assert float(singular_values.min()) > 0.6
    assert float(singular_values.max()) < 1.3


def test_an_adam_step_equals_torchs_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 3))
    ours.grad = torch.randn(4, 3)
    theirs.grad = ours.grad.clone()
    make_optimizer("adam", [ours], learning_rate=1e-3, weight_decay=0.1).step()
    torch.optim.AdamW([theirs], lr=1e-3, weight_decay=0.1).step()
    torch.testing.assert_close(ours, theirs)


def test_the_controls_update_has_muons_size_and_adams_direction() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.randn(16, 48)), nn.Parameter(torch.zeros(16, 48))
    theirs.data.copy_(ours.data)
    ours.grad = torch.randn(16, 48)
    theirs.grad = ours.grad.clone()
    before = ours.detach().clone()
    make_optimizer("adam-rms", [ours], learning_rate=1e-2, weight_decay=0.5).step()
    make_optimizer("adam", [theirs], learning_rate=1e-2, weight_decay=0.5).step()
    decayed = before * (1 - 1e-2 * 0.5)
    update, adams = ours.detach() - decayed, theirs.detach() - decayed
    assert float(update.square().mean().sqrt()) == pytest.approx(0.2 * 1e-2, rel=1e-4)
    torch.testing.assert_close(update / update.norm(), adams / adams.norm(), atol=1e-5, rtol=1e-3)


def test_a_change_half_way_is_two_phases() -> None:
    assert optimizer_phases("adam-then-muon") == ("adam", "muon")
    assert optimizer_phases("adam-rms") == ("adam-rms",)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_vanishing_gradient_moves_nothing(optimizer: str) -> None:
    weight = nn.Parameter(torch.ones(8, 4))
    weight.grad = torch.full((8, 4), 1e-20)
    drop_vanishing_gradients([weight])
    make_optimizer("muon" if optimizer == "muon" else "adam", [weight], 1.0, 0.0).step()
    torch.testing.assert_close(weight.detach(), torch.ones(8, 4))


@given(steps=st.integers(1, 500), warmup=st.floats(0, 0.9))
def test_the_learning_rate_warms_up_then_falls_and_never_leaves_its_bounds(steps: int, warmup: float) -> None:
    factors = [learning_rate_factor(step, steps, warmup) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)

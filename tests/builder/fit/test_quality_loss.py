"""The shipped table of what a configuration loses: measured, monotonic, and with its source."""

from __future__ import annotations

from dataclasses import replace

from edgewright_builder.fit.memory import Configuration
from edgewright_builder.fit.quality_loss import expected_divergence, load_losses
from tests.builder.fit.test_fit import LLAMA, SMOL

WHOLE = Configuration(30, 4, 64, 8, 1024, 1)


def test_every_layer_that_goes_costs_more() -> None:
    losses = [expected_divergence(SMOL, replace(WHOLE, layers=layers)) for layers in range(30, 0, -1)]
    assert losses == sorted(losses)
    assert losses[0] < losses[1] < losses[-1]


def test_fewer_bits_cost_more_and_larger_groups_no_less() -> None:
    table = load_losses()
    assert table.embedding_bits[16] <= table.embedding_bits[8] < table.embedding_bits[4]
    assert table.group_size[32] <= table.group_size[64] <= table.group_size[128]


def test_layers_go_by_their_share_of_the_model() -> None:
    half = Configuration(14, 4, 64, 8, 1024, 1)
    assert expected_divergence(LLAMA, half) == expected_divergence(SMOL, replace(WHOLE, layers=15))


def test_a_4_bit_embedding_costs_less_than_the_layers_whose_bytes_it_saves() -> None:
    table = load_losses()
    saved_bytes = SMOL.embedding_parameters / 2
    layer_bytes = SMOL.linear_parameters / 30 * (4 + 32 / 64) / 8
    layers = 30 - round(saved_bytes / layer_bytes)
    assert table.embedding_bits[4] < table.of_layers(layers, 30)


def test_the_table_says_what_each_figure_was_measured_on() -> None:
    source = load_losses().source
    assert all(part in source for part in ("SmolLM2-135M", "embedding:", "layers:", "linear layers:"))

"""GPTQ against an earlier model's codes: what stays, what moves, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgewright.errors import InputError
from edgewright_builder.quantization.delta_aware import (
    CODE_MAX,
    SYMMETRIC_ZEROS,
    ZERO,
    Frozen,
    nearest_codes,
    requantize,
    unpack,
)
from edgewright_builder.quantization.earlier_model import earlier_model, require_same_shape
from edgewright_builder.recipe.model_recipe import load_recipe

ROWS, COLUMNS, GROUP = 24, 160, 32
CONFIG = {
    "num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


def case(seed: int, change: float = 0.02) -> tuple[Tensor, Frozen, Tensor]:
    """New weights, the earlier layer, and inputs to calibrate on: correlated, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    old = torch.randn(ROWS, COLUMNS, generator=generator)
    scales = old.reshape(ROWS, -1, GROUP).abs().amax(-1) / (CODE_MAX / 2)
    frozen = Frozen(torch.zeros(ROWS, COLUMNS), scales)
    codes = (old / frozen.column_scales + ZERO).round().clamp(0, CODE_MAX)
    mix = torch.randn(COLUMNS, COLUMNS, generator=generator) / COLUMNS**0.5
    inputs = torch.randn(4 * COLUMNS, COLUMNS, generator=generator) @ mix
    new = old + change * torch.randn(ROWS, COLUMNS, generator=generator)
    return new, Frozen(codes, scales), inputs


def inverse_factor(inputs: Tensor) -> Tensor:
    hessian = inputs.T @ inputs
    hessian += 0.05 * hessian.diagonal().mean() * torch.eye(len(hessian))
    factor: Tensor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    return factor


def output_error(frozen: Frozen, codes: Tensor, weight: Tensor, inputs: Tensor) -> float:
    return float(((frozen.dequantize(codes) - weight) @ inputs.T).square().mean())


@given(seed=st.integers(0, 10_000), dead_band=st.floats(0, 2))
def test_a_kept_code_is_near_and_a_moved_one_is_the_nearest(seed: int, dead_band: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, scale = torch.randn(200, generator=generator), torch.rand(200, generator=generator) + 0.1
    old = torch.randint(0, 16, (200,), generator=generator).float()
    codes = nearest_codes(weight, scale, old, dead_band)
    ideal = weight / scale + ZERO
    kept = codes == old
    nearest = ideal.round().clamp(0, CODE_MAX)
    assert ((ideal - old)[kept].abs() <= 0.5 + dead_band).logical_or(nearest[kept] == old[kept]).all()
    assert torch.equal(codes[~kept], nearest[~kept])
    assert ((ideal - old)[~kept].abs() > 0.5 + dead_band).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_band_keeps_every_code_and_a_wider_one_changes_no_more(seed: int) -> None:
    weight, frozen, inputs = case(seed)
    factor, scales = inverse_factor(inputs), frozen.column_scales
    changed = [
        int((requantize(weight, factor, scales, frozen.codes, band)[0] != frozen.codes).sum())
        for band in (0.0, 0.25, 1.0, 100.0)
    ]
    assert changed == sorted(changed, reverse=True)
    assert changed[0] > changed[1] > 0
    assert changed[-1] == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_columns_that_follow_make_up_for_a_kept_code(seed: int) -> None:
    """With the same band, GPTQ's compensation leaves less error in the layer's output than none."""
    weight, frozen, inputs = case(seed)
    scales = frozen.column_scales
    alone = nearest_codes(weight, scales, frozen.codes, 0.25)
    codes, loss = requantize(weight, inverse_factor(inputs), scales, frozen.codes, 0.25)
    assert output_error(frozen, codes, weight, inputs) < output_error(frozen, alone, weight, inputs)
    assert output_error(frozen, codes, weight, inputs) < output_error(frozen, frozen.codes, weight, inputs)
    assert loss > 0
    assert torch.equal(codes, codes.round().clamp(0, CODE_MAX))


def test_uncorrelated_inputs_and_no_band_are_plain_rounding() -> None:
    weight, frozen, _ = case(1)
    codes, _ = requantize(weight, torch.eye(COLUMNS), frozen.column_scales, frozen.codes, 0.0)
    rounded = (weight / frozen.column_scales + ZERO).round().clamp(0, CODE_MAX)
    assert torch.equal(codes, rounded)


def packed(codes: Tensor) -> Tensor:
    """(out, in) codes as GPTQ v1 stores them: eight inputs a word, (in / 8, out)."""
    words = codes.T.to(torch.int64).reshape(-1, 8, codes.shape[0])
    shifted = words << (4 * torch.arange(8)).reshape(1, 8, 1)
    summed = shifted.sum(1)
    return torch.where(summed >= 2**31, summed - 2**32, summed).to(torch.int32)


def test_codes_come_out_of_a_checkpoint_as_they_were_packed() -> None:
    _, frozen, _ = case(2)
    zeros = torch.full((COLUMNS // GROUP, ROWS // 8), SYMMETRIC_ZEROS, dtype=torch.int32)
    found = unpack(packed(frozen.codes), frozen.scales.T.half(), zeros)
    assert torch.equal(found.codes, frozen.codes)
    assert torch.equal(found.scales, frozen.scales.half().float())
    assert found.group_size == GROUP
    with pytest.raises(InputError, match="zero points are not all 8"):
        unpack(packed(frozen.codes), frozen.scales.T, zeros + 1)


def checkpoint(folder: Path, **changes: Any) -> Path:
    quantization = {"quant_method": "gptq", "bits": 4, "sym": True, "group_size": 64}
    config = CONFIG | {"quantization_config": quantization} | changes
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def earlier_run(folder: Path, dropped: list[int]) -> Path:
    checkpoint(folder / "quantize" / "model")
    (folder / "finetune" / "model").mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"dropped_layers": dropped}))
    return folder


def test_a_run_brings_its_weights_and_a_checkpoint_only_its_codes(tmp_path: Path) -> None:
    run = earlier_run(tmp_path / "run", [1])
    assert earlier_model(run, 0.1).unquantized == run / "finetune" / "model"
    assert earlier_model(run, 0.1).dropped_layers == (1,)
    alone = earlier_model(run / "quantize" / "model", 0.1)
    assert (alone.unquantized, alone.dropped_layers) == (None, None)
    assert alone.digest != earlier_model(checkpoint(tmp_path / "other", hidden_size=1), 0.1).digest


@pytest.mark.parametrize(
    "quantization",
    [None, {"quant_method": "awq", "bits": 4, "sym": True}, {"quant_method": "gptq", "bits": 8}],
)
def test_another_kind_of_checkpoint_is_refused(tmp_path: Path, quantization: dict[str, Any] | None) -> None:
    with pytest.raises(InputError, match="no symmetric 4-bit GPTQ checkpoint"):
        earlier_model(checkpoint(tmp_path / "c", quantization_config=quantization), 0.1)


def test_an_empty_folder_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither a run's quantize/model nor a GPTQ checkpoint"):
        earlier_model(tmp_path, 0.1)


@pytest.mark.parametrize(
    ("change", "group_size", "dropped", "sentence"),
    [
        ({"num_hidden_layers": 4}, 64, [1], "num_hidden_layers 4"),
        ({"hidden_size": 32}, 64, [1], "hidden_size 32"),
        ({}, 128, [1], "`quantize.group_size: 64`"),
        ({}, 64, [2], r"`student.drop_layers: \[1\]`"),
    ],
)
def test_a_model_of_another_shape_is_refused_and_told_the_setting(
    tmp_path: Path, change: dict[str, Any], group_size: int, dropped: list[int], sentence: str
) -> None:
    earlier = earlier_model(earlier_run(tmp_path / "run", [1]), 0.1)
    require_same_shape(CONFIG, 64, [1], earlier)
    require_same_shape(CONFIG, 64, None, earlier)
    with pytest.raises(InputError, match=sentence):
        require_same_shape(CONFIG | change, group_size, dropped, earlier)


def test_the_recipe_names_the_earlier_run_from_its_own_folder(tmp_path: Path) -> None:
    text = (
        "name: n\ntask: t\nstudent: {model: m}\nteachers: {knowledge: {model: m}}\ndata: {file: d.jsonl}\n"
        "quantize: {delta_from: ../runs/old, dead_band: 0.5}\n"
    )
    (tmp_path / "r.yaml").write_text(text)
    settings = load_recipe(tmp_path / "r.yaml").quantize
    assert settings.delta_from == tmp_path / "../runs/old"
    assert settings.dead_band == 0.5
    (tmp_path / "r.yaml").write_text(text.replace("0.5", "-1"))
    with pytest.raises(InputError, match=r"quantize.dead_band"):
        load_recipe(tmp_path / "r.yaml")

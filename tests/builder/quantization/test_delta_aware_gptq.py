"""The whole way through GPTQModel on a tiny Llama: what a board that has the earlier model is sent."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgewright_builder.quantization.earlier_model import earlier_model
from edgewright_builder.stages.quantize import Quantization, quantize
from tests.support.tiny_build import write_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
GROUP = 64


def sequences(seed: int) -> list[list[int]]:
    numbers = random.Random(seed)
    return [numbers.choices(range(250), k=48) for _ in range(16)]


def quantized(
    model: Path, folder: Path, *, seed: int = 0, run: Path | None = None, band: float = 0.25
) -> dict:  # type: ignore[type-arg]
    folder.mkdir(parents=True)
    earlier = None if run is None else earlier_model(run, band)
    job = Quantization(model, GROUP, sequences(seed), earlier)
    return quantize(job, folder, lambda *_: None)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An earlier run: its merged model and its GPTQ checkpoint."""
    run = tmp_path_factory.mktemp("run")
    write_model(run / "finetune" / "model")
    quantized(run / "finetune" / "model", run / "quantize")
    return run


def touched(run: Path, folder: Path, layer: str) -> Path:
    """The run's model with one layer trained a little further."""

    shutil.copytree(run / "finetune" / "model", folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if layer in name)
    torch.manual_seed(0)
    weights[name] += 0.05 * weights[name].std() * torch.randn_like(weights[name])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_weights_that_did_not_change_keep_every_code_whatever_they_are_calibrated_on(
    run: Path, tmp_path: Path
) -> None:
    summary = quantized(run / "finetune" / "model", tmp_path / "new", seed=7, run=run)
    assert summary["codes_changed_fraction"] == 0
    before, after = tensors(run / "quantize"), tensors(tmp_path / "new")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_only_the_layer_that_was_trained_is_sent_and_its_scales_stay(run: Path, tmp_path: Path) -> None:
    model = touched(run, tmp_path / "model", "layers.1.mlp.up_proj.weight")
    summary = quantized(model, tmp_path / "new", run=run)
    before, after = tensors(run / "quantize"), tensors(tmp_path / "new")
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["model.layers.1.mlp.up_proj.qweight"]
    assert 0 < summary["codes_changed_fraction"] < 0.1
    assert summary["dead_band"] == 0.25


def test_without_the_earlier_weights_the_band_alone_decides(run: Path, tmp_path: Path) -> None:
    checkpoint = run / "quantize" / "model"
    narrow = quantized(run / "finetune" / "model", tmp_path / "narrow", seed=7, run=checkpoint, band=0.0)
    wide = quantized(run / "finetune" / "model", tmp_path / "wide", seed=7, run=checkpoint, band=0.5)
    assert 0 < wide["codes_changed_fraction"] < narrow["codes_changed_fraction"]

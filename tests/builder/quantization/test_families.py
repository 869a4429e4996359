"""A model of each supported family by real GPTQ and AutoRound: it keeps its configuration and is exported."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from edgewright_builder.export.onnx import export_onnx
from edgewright_builder.models.folder import read_config
from edgewright_builder.parity.checkpoint import make_checkpoint
from edgewright_builder.quantization.gptq_checkpoint import load_dequantized
from edgewright_builder.quantization.gptq_settings import require_holdable
from edgewright_builder.scoring.onnx_logits import open_logits
from edgewright_builder.stages.quantize import Quantization, autoround, quantize
from tests.support.gptq_checkpoints import FAMILIES

GROUP_SIZE = 32
NEAR = 0.05  # of the logits' spread: the engine rounds the inputs of its products to 8 bits
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "gemma3"]
DRAW = random.Random(0)
CALIBRATION = [[DRAW.randrange(3, 250) for _ in range(64)] for _ in range(8)]


@pytest.mark.parametrize("name", ["gemma3", *SLOW])
def test_a_quantized_family_keeps_its_configuration_and_is_exported(name: str, tmp_path: Path) -> None:
    plain = plain_checkpoint(name, tmp_path)
    (tmp_path / "quantized").mkdir()
    quantize(Quantization(plain, GROUP_SIZE, CALIBRATION), tmp_path / "quantized", lambda *_: None)
    checkpoint = tmp_path / "quantized" / "model"
    config = read_config(checkpoint)
    del config["quantization_config"]
    assert config == read_config(plain)
    assert generation(checkpoint) == generation(plain)
    require_exported(checkpoint, tmp_path / "export")


@pytest.mark.parametrize("name", ["gemma3", *SLOW])
def test_a_family_by_autoround_keeps_its_configuration_but_for_the_floats_and_is_exported(
    name: str, tmp_path: Path
) -> None:
    plain = plain_checkpoint(name, tmp_path)
    (tmp_path / "quantized").mkdir()
    job = Quantization(plain, GROUP_SIZE, CALIBRATION)
    autoround(job, steps=1, seed=0, folder=tmp_path / "quantized", on_progress=lambda *_: None)
    checkpoint = tmp_path / "quantized" / "model"
    config = read_config(checkpoint)
    del config["quantization_config"]
    assert config == read_config(plain) | {"dtype": "float16"}
    assert generation(checkpoint) == generation(plain)
    require_holdable(checkpoint)
    require_exported(checkpoint, tmp_path / "export")


def generation(folder: Path) -> bytes:
    """Its generation settings; empty where it has none."""
    path = folder / "generation_config.json"
    return path.read_bytes() if path.exists() else b""


def require_exported(checkpoint: Path, folder: Path) -> None:
    """Asserts that the exporter takes the checkpoint, and that the engine computes what its codes and scales say."""
    folder.mkdir()
    export_onnx(checkpoint, 8, folder)
    tokens = CALIBRATION[0]
    exported = open_logits(folder / "engine")(tokens)
    with torch.no_grad():
        expected = load_dequantized(checkpoint)(torch.tensor([tokens])).logits[0]
    assert (exported - expected).std() < NEAR * expected.std()


def plain_checkpoint(name: str, folder: Path) -> Path:
    """A random model in floats, as fine-tuning leaves one."""
    config = {key: value for key, value in FAMILIES[name].items() if value is not None}
    model: Any = make_checkpoint(config, folder / "grid")
    tokenizer = [path for path in (folder / "grid").iterdir() if path.name.startswith("tokenizer")]
    plain = folder / "plain"
    model.save_pretrained(plain)
    for path in tokenizer:
        (plain / path.name).write_bytes(path.read_bytes())
    return plain

"""A model of each supported family by real GPTQ: its configuration stays its own, and the exporter reads it."""

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
from edgewright_builder.scoring.onnx_logits import open_logits
from edgewright_builder.stages.quantize import Quantization, quantize
from tests.support.gptq_checkpoints import FAMILIES

GROUP_SIZE = 32
NEAR = 0.05  # of the logits' spread: the engine rounds the inputs of its products to 8 bits
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "gemma3"]


@pytest.mark.parametrize("name", ["gemma3", *SLOW])
def test_a_quantized_family_keeps_its_configuration_and_is_exported(name: str, tmp_path: Path) -> None:
    plain = plain_checkpoint(name, tmp_path)
    draw = random.Random(0)
    calibration = [[draw.randrange(3, 250) for _ in range(64)] for _ in range(8)]
    for folder in ("quantized", "export"):
        (tmp_path / folder).mkdir()
    quantize(Quantization(plain, GROUP_SIZE, calibration), tmp_path / "quantized", lambda *_: None)
    checkpoint = tmp_path / "quantized" / "model"
    config = read_config(checkpoint)
    del config["quantization_config"]
    assert config == read_config(plain)

    export_onnx(checkpoint, 8, tmp_path / "export")
    tokens = calibration[0]
    exported = open_logits(tmp_path / "export" / "engine")(tokens)
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

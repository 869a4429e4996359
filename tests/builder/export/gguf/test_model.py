"""The weights of a GGUF file as a model: the checkpoint's own, but for the tables that the file rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgewright_builder.export.gguf.file import write_gguf
from edgewright_builder.export.gguf.model import load_exported
from edgewright_builder.quantization.gptq_checkpoint import load_dequantized
from tests.support.gptq_checkpoints import FAMILIES, random_checkpoint


@pytest.mark.parametrize("family", ["llama", "llama, biases, untied"])
@pytest.mark.parametrize(("bits", "largest_error"), [(8, 1 / 127), (4, 1 / 8)])
def test_only_the_tables_are_rounded_and_no_further_than_a_step(
    family: str, bits: int, largest_error: float, tmp_path: Path
) -> None:
    checkpoint = random_checkpoint(FAMILIES[family], tmp_path / "checkpoint", 32)
    write_gguf(checkpoint, bits, tmp_path / "model.gguf", "tiny")
    before: Any = load_dequantized(checkpoint)
    after: Any = load_exported(checkpoint, tmp_path / "model.gguf")
    tables = {id(model.get_input_embeddings().weight) for model in (before, after)}
    tables |= {id(model.get_output_embeddings().weight) for model in (before, after)}
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        if id(old) not in tables:
            assert torch.equal(old, new), name
            continue
        blocks = old.abs().reshape(-1, 32).max(dim=1).values
        error = (old - new).abs().reshape(-1, 32).max(dim=1).values
        assert torch.all(error <= largest_error * blocks * 1.01)
        assert not torch.equal(old, new)

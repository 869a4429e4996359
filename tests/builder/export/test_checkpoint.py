"""The export for vLLM and TensorRT Edge-LLM: the checkpoint in the 16-bit type that the engine computes it in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edgewright_builder.export.checkpoint import export_checkpoint
from edgewright_builder.local_engine.golden_prompt import golden_prompt
from edgewright_builder.local_engine.reference import open_references
from edgewright_builder.parity.checkpoint import make_checkpoint
from tests.support.gptq_checkpoints import FAMILIES

NORM = "model.norm.weight"


def exported(family: str, folder: Path, **changes: Any) -> Path:
    """The engine's folder of a tiny model whose checkpoint is in float32, as GPTQ leaves it on a CPU."""
    config: Mapping[str, Any] = {**FAMILIES[family], **changes}
    make_checkpoint({key: value for key, value in config.items() if value is not None}, folder / "checkpoint")
    (folder / "export").mkdir()
    export_checkpoint(folder / "checkpoint", folder / "export")
    return folder / "export/engine"


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("llama", "float16"), ("gemma", "float16"), ("gemma2", "bfloat16"), ("gemma3", "bfloat16")],
)
def test_what_is_not_quantized_is_in_the_16_bits_that_the_family_can_compute_in(
    family: str, dtype: str, tmp_path: Path
) -> None:
    engine = exported(family, tmp_path)
    assert json.loads((engine / "config.json").read_text(encoding="utf-8"))["dtype"] == dtype
    tensors = load_file(engine / "model.safetensors")
    assert tensors[NORM].dtype == getattr(torch, dtype)
    assert torch.float32 not in {tensor.dtype for tensor in tensors.values()}


def test_a_model_of_bfloat16_stays_in_it(tmp_path: Path) -> None:
    engine = exported("qwen3", tmp_path, dtype="bfloat16")
    assert json.loads((engine / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    assert load_file(engine / "model.safetensors")[NORM].dtype == torch.bfloat16


def test_the_golden_prompt_of_such_a_family_is_tried_in_bfloat16(tmp_path: Path) -> None:
    engine = exported("gemma3", tmp_path)
    golden = golden_prompt(open_references(engine), ["the cat sat on the mat"])
    assert len(golden["leads"]) == len(golden["tokens"]) > 0

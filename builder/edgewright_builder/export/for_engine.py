"""Exports a checkpoint as the engine that is to serve it loads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewright_builder.export.onnx import export_onnx, export_unquantized
from edgewright_builder.export.vllm import export_vllm
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.models import read_config


def export_for_engine(
    engine: str,
    checkpoint: Path,
    embedding_bits: int,
    folder: Path,
    adapter_modules: Sequence[str] = (),
    context_tokens: int | None = None,
) -> dict[str, Any]:
    """Writes `folder/engine` and `folder/tokenizer` of a GPTQ checkpoint. Returns what a stage says of itself."""
    if engine_traits(engine).loads == "checkpoint":
        return export_vllm(checkpoint, folder)
    return export_onnx(
        checkpoint, embedding_bits, folder, adapter_modules=adapter_modules, context_tokens=context_tokens
    )


def export_before_quantization(engine: str, checkpoint: Path, folder: Path) -> None:
    """Writes the same folders of a checkpoint that is not quantized."""
    if engine_traits(engine).loads == "checkpoint":
        export_vllm(checkpoint, folder)
    else:
        export_unquantized(checkpoint, folder)


def precision_before_quantization(engine: str, folder: Path) -> str:
    """Returns what `export_before_quantization` wrote to `folder` in, such as "float32"."""
    if engine_traits(engine).loads == "checkpoint":
        return str(read_config(folder / "engine")["dtype"])
    return "float32"

"""Exports a checkpoint as the engine that is to serve it loads it: each format says for itself how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright_builder.export.checkpoint import export_checkpoint
from edgewright_builder.export.llama_cpp import export_gguf, export_gguf_unquantized
from edgewright_builder.export.onnx import export_onnx, export_unquantized
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.engines.traits import Format
from edgewright_builder.models.folder import read_config


@dataclass(frozen=True)
class ExportJob:
    """What is exported, and for what."""

    checkpoint: Path
    embedding_bits: int
    adapter_modules: Sequence[str] = ()
    context_tokens: int | None = None
    name: str = "edgewright"


@dataclass(frozen=True)
class Exporter:
    """How one format is written. Both write `folder/engine` and `folder/tokenizer`."""

    quantized: Callable[[ExportJob, Path], dict[str, Any]]  # returns what a stage says of itself
    unquantized: Callable[[Path, Path], object]
    precision: Callable[[Path], str]  # of what `unquantized` wrote to a folder


EXPORTERS: Mapping[Format, Exporter] = {
    "onnx": Exporter(
        lambda job, folder: export_onnx(
            job.checkpoint, job.embedding_bits, folder,
            adapter_modules=job.adapter_modules, context_tokens=job.context_tokens,
        ),
        export_unquantized,
        lambda folder: "float32",
    ),
    "gguf": Exporter(
        lambda job, folder: export_gguf(job.checkpoint, job.embedding_bits, folder, job.name),
        export_gguf_unquantized,
        lambda folder: "float32",
    ),
    "gptq": Exporter(
        lambda job, folder: export_checkpoint(job.checkpoint, folder),
        export_checkpoint,
        lambda folder: str(read_config(folder / "engine")["dtype"]),
    ),
}  # fmt: skip


def exporter_for(engine: str) -> Exporter:
    """Returns how the files of an engine are written. Raises InputError for one that is unknown."""
    return EXPORTERS[engine_traits(engine).format]

"""The stage `export` for llama.cpp: one GGUF file, and the tokenizer's files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewright_builder.export.files import copy_tokenizer, size_of
from edgewright_builder.export.gguf.file import write_gguf
from edgewright_builder.models.folder import read_config

MODEL_FILE = "model.gguf"


def export_gguf(checkpoint: Path, embedding_bits: int, folder: Path, name: str) -> dict[str, Any]:
    """Writes `folder/engine/model.gguf` of a GPTQ checkpoint and `folder/tokenizer`. Returns what the stage says."""
    (folder / "engine").mkdir()
    write_gguf(checkpoint, embedding_bits, folder / "engine" / MODEL_FILE, name)
    copy_tokenizer(checkpoint, folder / "tokenizer")
    tied = bool(read_config(checkpoint).get("tie_word_embeddings"))
    return {"embedding_bits": embedding_bits, "tied": tied, "size_bytes": size_of(folder)}


def export_gguf_unquantized(checkpoint: Path, folder: Path) -> None:
    """Writes the same folders with float32 weights: what the model was before quantization, for the same engine."""
    export_gguf(checkpoint, 16, folder, "unquantized")

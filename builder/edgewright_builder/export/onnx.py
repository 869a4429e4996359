"""Exports a checkpoint as an ONNX Runtime GenAI model, head and embedding one quantized tensor."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from edgewright.die_with_parent import tethered
from edgewright.durable import write_json
from edgewright.errors import OutsideError
from edgewright_builder.export.files import copy_tokenizer, size_of
from edgewright_builder.export.lora_slots import PACKABLE, add_slots
from edgewright_builder.export.model_builder import Job
from edgewright_builder.models.folder import read_config
from edgewright_builder.run.resumable_run import child_fault

# Computing in int8 (accuracy level 4) is what makes 4-bit weights fast on CPUs.
INT8_COMPUTE = "accuracy_level=4"


def export_onnx(
    checkpoint: Path,
    embedding_bits: int,
    folder: Path,
    *,
    block_size: int | None = None,
    adapter_modules: Sequence[str] = (),
    context_tokens: int | None = None,
) -> dict[str, Any]:
    """Writes `folder/engine` (model.onnx, model.onnx.data, genai_config.json) and `folder/tokenizer`.

    A checkpoint that is not quantized is rounded to nearest in blocks of `block_size`. The graph takes LoRA adapters
    of `adapter_modules`. It serves sequences of `context_tokens`, the model's maximum where that is None.
    """
    work = folder / "work"
    work.mkdir(exist_ok=True)
    tied = bool(read_config(checkpoint).get("tie_word_embeddings"))
    options = quantized_options(tied=tied, embedding_bits=embedding_bits)
    if block_size is not None:
        options.append(f"block_size={block_size}")
    if set(adapter_modules) & set(PACKABLE):
        options.append("fuse_qkv=false")
    out = _build(checkpoint, "int4", options, work, context_tokens)
    if adapter_modules:
        add_slots(out / "model.onnx", adapter_modules)
    _arrange(out, checkpoint, folder)
    shutil.rmtree(out)
    return {"embedding_bits": embedding_bits, "tied": tied, "size_bytes": size_of(folder)}


def export_unquantized(checkpoint: Path, folder: Path) -> None:
    """Writes the same folders with float32 weights: what the model was before quantization, for the same engine."""
    work = folder / "work"
    work.mkdir()
    tied = bool(read_config(checkpoint).get("tie_word_embeddings"))
    _arrange(_build(checkpoint, "fp32", [f"shared_embeddings={str(tied).lower()}"], work), checkpoint, folder)
    shutil.rmtree(work)


def quantized_options(*, tied: bool, embedding_bits: int) -> list[str]:
    """Returns the exporter's options for a model with 4-bit projections."""
    options = [INT8_COMPUTE, f"shared_embeddings={str(tied).lower()}"]
    if embedding_bits == 8:
        options.append("matmul_mixed_precision=last_matmul:int8")
    return options


def exporter_environment() -> dict[str, str]:
    """Returns the environment of a process that exports.

    The exporter writes the commit of whatever git repository its environment lies in into the graph as its own version;
    without a repository it writes the commit it was released from. Equal builds must give equal digests.
    """
    return os.environ | {
        "ORT_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false", "GIT_DIR": os.devnull,
    }  # fmt: skip


def _arrange(onnx: Path, checkpoint: Path, folder: Path) -> None:
    """Moves the builder's files to `folder/engine` and copies the tokenizer's to `folder/tokenizer`."""
    engine, tokenizer = folder / "engine", folder / "tokenizer"
    engine.mkdir()
    for name in ("model.onnx", "model.onnx.data", "genai_config.json"):
        (onnx / name).replace(engine / name)
    copy_tokenizer(checkpoint, tokenizer)


def _build(
    checkpoint: Path,
    precision: Literal["int4", "fp32"],
    options: list[str],
    work: Path,
    context_tokens: int | None = None,
) -> Path:
    """Runs the exporter in a child process. Returns the folder it wrote to."""
    out, log_file = work / "onnx", work / "export.log"
    job = Job(str(checkpoint), str(out), str(work / "cache"), precision, tuple(options), context_tokens)
    write_json(work / "export.json", asdict(job))
    command = [
        *tethered(),
        sys.executable,
        "-m",
        "edgewright_builder.export.model_builder",
        str(work / "export.json"),
    ]
    with log_file.open("w", encoding="utf-8") as log:
        done = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env=exporter_environment(), check=False
        )
    if done.returncode != 0 or not (out / "model.onnx").exists():
        raise OutsideError(child_fault("The ONNX export", done.returncode, log_file))
    return out

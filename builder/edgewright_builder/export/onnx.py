"""Exports a checkpoint as an ONNX Runtime GenAI model, head and embedding one quantized tensor.

ONNX Runtime GenAI's model builder runs in a child process: it logs to the terminal and holds the model twice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewright.errors import OutsideError
from edgewright.tether import tethered
from edgewright_builder.export.files import copy_tokenizer, size_of
from edgewright_builder.export.lora_slots import PACKABLE, add_slots
from edgewright_builder.models import read_config
from edgewright_builder.run.run import last_line

# Computing in int8 (accuracy level 4) is what makes 4-bit weights fast on CPUs.
INT8_COMPUTE = "int4_accuracy_level=4"


def export_onnx(
    checkpoint: Path,
    embedding_bits: int,
    folder: Path,
    *,
    block_size: int | None = None,
    adapter_modules: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes `folder/engine` (model.onnx, model.onnx.data, genai_config.json) and `folder/tokenizer`.

    A checkpoint that is not quantized is rounded to nearest in blocks of `block_size`. The graph takes LoRA adapters
    of `adapter_modules`.
    """
    work = folder / "work"
    work.mkdir(exist_ok=True)
    tied = bool(read_config(checkpoint).get("tie_word_embeddings"))
    options = [INT8_COMPUTE, f"shared_embeddings={str(tied).lower()}"]
    if embedding_bits == 8:
        options.append("matmul_mixed_precision=last_matmul:int8")
    if block_size is not None:
        options.append(f"int4_block_size={block_size}")
    if set(adapter_modules) & set(PACKABLE):
        options.append("fuse_qkv=false")
    _build(checkpoint, "int4", options, work / "onnx", work)
    _join_dangling_inputs(work / "onnx" / "model.onnx")
    if adapter_modules:
        add_slots(work / "onnx" / "model.onnx", adapter_modules)
    _arrange(work / "onnx", checkpoint, folder)
    shutil.rmtree(work / "onnx")
    return {"embedding_bits": embedding_bits, "tied": tied, "size_bytes": size_of(folder)}


def export_unquantized(checkpoint: Path, folder: Path) -> None:
    """Writes the same folders with float32 weights: what the model was before quantization, for the same engine."""
    work = folder / "work"
    work.mkdir()
    tied = bool(read_config(checkpoint).get("tie_word_embeddings"))
    _build(checkpoint, "fp32", [f"shared_embeddings={str(tied).lower()}"], work / "onnx", work)
    _arrange(work / "onnx", checkpoint, folder)
    shutil.rmtree(work)


def _arrange(onnx: Path, checkpoint: Path, folder: Path) -> None:
    """Moves the builder's files to `folder/engine` and copies the tokenizer's to `folder/tokenizer`."""
    engine, tokenizer = folder / "engine", folder / "tokenizer"
    engine.mkdir()
    for name in ("model.onnx", "model.onnx.data", "genai_config.json"):
        (onnx / name).replace(engine / name)
    copy_tokenizer(checkpoint, tokenizer)


def _build(checkpoint: Path, precision: str, options: list[str], out: Path, work: Path) -> None:
    command = [
        *tethered(), sys.executable, "-m", "onnxruntime_genai.models.builder",
        "-i", str(checkpoint), "-o", str(out), "-p", precision, "-e", "cpu", "-c", str(work / "cache"),
        "--extra_options", *options,
    ]  # fmt: skip
    # The builder writes the commit of whatever git repository its environment lies in into the graph as its own
    # version; without a repository it writes the commit it was released from. Equal builds must give equal digests.
    environment = os.environ | {
        "ORT_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false", "GIT_DIR": os.devnull,
    }  # fmt: skip
    with (work / "export.log").open("w", encoding="utf-8") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode != 0 or not (out / "model.onnx").exists():
        path = work / "export.log"
        raise OutsideError(
            f"The ONNX export failed with exit code {done.returncode}; its log {path} ends: {last_line(path)}"
        )


def _join_dangling_inputs(path: Path) -> None:
    """Points the shared embedding at the head's tensors.

    onnxruntime-genai 0.18 names the embedding's inputs `lm_head.MatMul.weight_Q8G32` and `…weight_scale`, the tensors
    `…weight_Q8` and `…weight_scales`: the graph does not load until they agree.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    tensors = {tensor.name for tensor in model.graph.initializer}
    known = tensors | {value.name for value in model.graph.input} | {""}
    known |= {name for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name not in known:
                node.input[position] = _its_tensor(name, tensors)
    onnx.save(model, str(path))


def _its_tensor(name: str, tensors: set[str]) -> str:
    matching = [tensor for tensor in tensors if tensor.startswith(name) or name.startswith(tensor)]
    if len(matching) != 1:
        raise OutsideError(
            f"The exported graph reads {name!r}, which it does not hold; onnxruntime-genai's builder has changed."
        )
    return matching[0]

"""Quantize the tiny model as a build does, and export the one checkpoint for both engines.

    python tiny_gptq.py CHECKPOINT FOLDER

A script of its own, because torch's import warns. FOLDER gets `onnx/` and `vllm/`.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from edgewright_builder.export.checkpoint import export_checkpoint
from edgewright_builder.export.onnx import export_onnx
from edgewright_builder.stages.quantize import Quantization, quantize

VOCABULARY = 267  # see `tiny_model`


def main(checkpoint: Path, folder: Path) -> None:
    """Write everything below `folder`."""
    source = random.Random(0)
    sequences = [[source.randrange(3, VOCABULARY) for _ in range(64)] for _ in range(16)]
    for name in ("quantized", "onnx", "vllm"):
        (folder / name).mkdir()
    job = Quantization(checkpoint, group_size=32, calibration=sequences)
    quantize(job, folder / "quantized", lambda *_: None)
    export_onnx(folder / "quantized/model", 8, folder / "onnx")
    export_checkpoint(folder / "quantized/model", folder / "vllm")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

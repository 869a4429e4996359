"""An engine's folder whose 4-bit products are computed in float32, as ONNX Runtime does where it has no int8 kernel.

`accuracy_level` of MatMulNBits asks for an arithmetic: 4 rounds activations to int8, 1 keeps them in float32
(onnxruntime, docs/ContribOperators.md). An ARM processor without dot products, such as Cortex-A57 or A72, computes in
float32 whatever is asked.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from edgewright.errors import InputError

# The attribute as protobuf writes it: field 1, its name; then field 3, a varint.
_NAME = b"\n\x0eaccuracy_level\x18"
_INT8, _FLOAT32 = _NAME + b"\x04", _NAME + b"\x01"


def write_float32_engine(engine: Path, folder: Path) -> Path:
    """Writes a copy of `engine` to `folder/engine` and returns it; weights are linked where the file system can.

    Raises InputError for a graph without int8 products.
    """
    graph = (engine / "model.onnx").read_bytes()
    if _INT8 not in graph:
        raise InputError(
            f"{engine / 'model.onnx'} has no product with accuracy_level 4: it is not of this builder."
        )
    target = folder / "engine"
    target.mkdir(parents=True)
    for file in engine.iterdir():
        if file.name != "model.onnx":
            _link(file, target / file.name)
    (target / "model.onnx").write_bytes(graph.replace(_INT8, _FLOAT32))
    return target


def _link(source: Path, target: Path) -> None:
    """Links the file, as ONNX Runtime opens no weights behind a symbolic link; copies it to another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

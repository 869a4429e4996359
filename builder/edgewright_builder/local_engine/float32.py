"""A model's tree whose 4-bit products are computed in float32, as ONNX Runtime does where it has no int8 kernel.

`accuracy_level` of MatMulNBits asks for an arithmetic: 4 rounds activations to int8, 1 keeps them in float32
(onnxruntime, docs/ContribOperators.md). An ARM processor without dot products, such as Cortex-A57 or A72, computes in
float32 whatever is asked.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

GRAPH = "engine/model.onnx"
# The attribute as protobuf writes it: field 1, its name; then field 3, a varint.
_NAME = b"\n\x0eaccuracy_level\x18"
_INT8, _FLOAT32 = _NAME + b"\x04", _NAME + b"\x01"


def has_int8_products(tree: Path) -> bool:
    """Whether `tree` holds a graph that asks for products of int8."""
    graph = tree / GRAPH
    return graph.exists() and _INT8 in graph.read_bytes()


def write_float32_tree(tree: Path, folder: Path) -> Path:
    """Writes a copy of `tree` (`engine/`, `tokenizer/`, …) to `folder/tree` and returns it.

    All but the graph is linked, where the file system can.
    """
    target = folder / "tree"
    for file in sorted(tree.rglob("*")):
        if file.is_file():
            _link(file, target / file.relative_to(tree))
    graph = target / GRAPH
    content = graph.read_bytes().replace(_INT8, _FLOAT32)
    graph.unlink()  # the link, not what it was linked to
    graph.write_bytes(content)
    return target


def _link(source: Path, target: Path) -> None:
    """Links the file, as ONNX Runtime opens no weights behind a symbolic link; copies it to another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

"""Finds the files that an ONNX model names besides its own: where its tensors' bytes lie (external data).

Reads the protocol buffer by its wire format, with the field numbers of onnx.proto
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). A board has no `onnx` package. Weights inside the file are
skipped.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

DEPTH_MAX = 64  # of graphs in attributes in graphs
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
# The fields of each message that lead to a tensor, or to an operator's name.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {4: "operator", 5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external data"},
}
_KEY, _VALUE = 1, 2  # of an entry of external data
CONTEXT_OPERATOR = "EPContext"  # holds a compiled model, or the path of one


class NotOnnxError(ValueError):
    """The bytes are not an ONNX model."""


def named_files(path: Path) -> set[str]:
    """Returns the locations of external data in the model at `path`. Raises NotOnnxError, OSError."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise NotOnnxError("it is empty")
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # unmapped with its last slice
    try:
        return set(_locations(memoryview(content), "model", 0))
    except (IndexError, UnicodeDecodeError):
        raise NotOnnxError("it ends inside a field") from None


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > DEPTH_MAX:
        raise NotOnnxError(f"its graphs lie more than {DEPTH_MAX} deep")
    for number, value in _fields(message):
        child = _FIELDS[kind].get(number)
        if child is None or value is None:
            continue
        if child == "operator" and bytes(value) == CONTEXT_OPERATOR.encode():
            raise NotOnnxError(f"it has the operator {CONTEXT_OPERATOR}, a model compiled elsewhere")
        if child == "external data":
            yield from _location(value)
        elif child != "operator":
            yield from _locations(value, child, depth + 1)


def _location(entry: memoryview) -> Iterator[str]:
    """Yields all values of an entry that is called `location`: parsers differ about repeated fields."""
    fields = list(_fields(entry))
    if any(number == _KEY and value is not None and bytes(value) == b"location" for number, value in fields):
        yield from (
            bytes(value).decode() for number, value in fields if number == _VALUE and value is not None
        )


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Yields each field's number, and its bytes if it has a length.

    See https://protobuf.dev/programming-guides/encoding/.
    """
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            _, position = _varint(message, position)
            yield number, None
        elif wire_type == _BYTES:
            size_bytes, position = _varint(message, position)
            if position + size_bytes > len(message):
                raise NotOnnxError("it ends inside a field")
            yield number, message[position : position + size_bytes]
            position += size_bytes
        elif wire_type in _FIXED_BYTES:
            position += _FIXED_BYTES[wire_type]
            if position > len(message):
                raise NotOnnxError("it ends inside a field")
            yield number, None
        else:
            raise NotOnnxError(f"a field has the wire type {wire_type}")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Returns the number at `position`, and where the next field begins."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise NotOnnxError("a number is longer than 64 bits")

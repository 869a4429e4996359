"""Where the tensors lie in an artifact's files: safetensors, and ONNX models with external data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import InputError


@dataclass(frozen=True)
class TensorPlace:
    """A tensor's bytes in its file."""

    offset_bytes: int
    size_bytes: int


def tensor_places(path: Path) -> dict[str, TensorPlace]:
    """Returns the tensors of a file by name, empty for files of other formats.

    Raises InputError if the file says it is of a known format and is not.
    """
    if path.suffix == ".safetensors":
        return _of_safetensors(path)
    graph = _onnx_graph_of(path)
    return {} if graph is None else _of_external_data(graph, path)


def _of_safetensors(path: Path) -> dict[str, TensorPlace]:
    # 8 bytes: header length, little endian; header: JSON; data_offsets count from the end of the header.
    # https://github.com/huggingface/safetensors#format
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if header_bytes > path.stat().st_size - 8:
            raise InputError(f"{path} is cut short: its header alone needs {header_bytes} bytes.")
        try:
            header = json.loads(file.read(header_bytes))
            return {
                name: _place(8 + header_bytes, *tensor["data_offsets"])
                for name, tensor in header.items()
                if name != "__metadata__"
            }
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} has no valid safetensors header ({error}).") from None


def _place(origin: int, begin: int, end: int) -> TensorPlace:
    return TensorPlace(origin + int(begin), int(end) - int(begin))


def _onnx_graph_of(path: Path) -> Path | None:
    """`model.onnx` for `model.onnx.data` and `model.onnx_data`, the two names in use."""
    for suffix in (".data", "_data"):
        graph = path.with_name(path.name.removesuffix(suffix))
        if path.name.endswith(".onnx" + suffix) and graph.is_file():
            return graph
    return None


def _of_external_data(graph: Path, path: Path) -> dict[str, TensorPlace]:
    import onnx  # slow, and only the host has it
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(graph), load_external_data=False)
    except DecodeError:
        raise InputError(f"{graph} is no valid ONNX model.") from None
    entries = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
    }
    here = {name: entry for name, entry in entries.items() if entry.get("location") == path.name}
    rest_bytes = path.stat().st_size
    return {
        name: TensorPlace(
            offset := int(entry.get("offset", 0)), int(entry.get("length", rest_bytes - offset))
        )
        for name, entry in here.items()
    }

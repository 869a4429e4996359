"""Where to cut a file into chunks, so that a tensor which did not change is not sent again.

Boundaries are the first bytes of tensors. A tensor of 1 MiB or more starts a chunk of its own and is split
every 4 MiB; runs of smaller ones are packed together. Packing starts afresh after each large tensor, so a
tensor that grows or vanishes moves no boundary beyond the next large one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edgewright_agent.errors import InputError
from edgewright_agent.manifest import CHUNK_BYTES_MAX

LARGE_TENSOR_BYTES = 1024 * 1024


def cut(size_bytes: int, boundaries: Sequence[int]) -> list[int]:
    """Sizes of the chunks, each in [1, 4 MiB], of a file of `size_bytes` with tensors at `boundaries`."""
    starts = sorted({0, *(start for start in boundaries if 0 < start < size_bytes)})
    sizes: list[int] = []
    packed = 0
    for start, end in zip(starts, [*starts[1:], size_bytes], strict=True):
        stretch = end - start
        if packed and (stretch >= LARGE_TENSOR_BYTES or packed + stretch > CHUNK_BYTES_MAX):
            sizes.append(packed)
            packed = 0
        if stretch >= LARGE_TENSOR_BYTES:
            sizes.extend(_split(stretch))
        else:
            packed += stretch
    return [*sizes, packed] if packed else sizes


def chunk_sizes(path: Path) -> list[int]:
    """Sizes of the chunks of a file, in order. Deterministic: depends on the file's tensors alone.

    Raises InputError if the file says it is of a known format and is not.
    """
    size_bytes = path.stat().st_size
    if path.suffix == ".safetensors":
        return cut(size_bytes, _safetensors_boundaries(path))
    graph = _onnx_graph_of(path)
    if graph is not None:
        return cut(size_bytes, _external_data_boundaries(graph, path.name))
    return _split(size_bytes)


def _split(size_bytes: int) -> list[int]:
    whole, rest = divmod(size_bytes, CHUNK_BYTES_MAX)
    return [CHUNK_BYTES_MAX] * whole + ([rest] if rest else [])


def _safetensors_boundaries(path: Path) -> list[int]:
    # 8 bytes: header length, little endian; header: JSON; data_offsets count from the end of the header.
    # https://github.com/huggingface/safetensors#format
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if header_bytes > path.stat().st_size - 8:
            raise InputError(f"{path} is cut short: its header alone needs {header_bytes} bytes.")
        try:
            header = json.loads(file.read(header_bytes))
            return [
                8 + header_bytes + int(tensor["data_offsets"][0])
                for name, tensor in header.items()
                if name != "__metadata__"
            ]
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise InputError(f"{path} has no valid safetensors header ({error}).") from None


def _onnx_graph_of(path: Path) -> Path | None:
    """`model.onnx` for `model.onnx.data` and `model.onnx_data`, the two names in use."""
    for suffix in (".data", "_data"):
        graph = path.with_name(path.name.removesuffix(suffix))
        if path.name.endswith(".onnx" + suffix) and graph.is_file():
            return graph
    return None


def _external_data_boundaries(graph: Path, location: str) -> list[int]:
    import onnx  # slow, and only the host has it
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(graph), load_external_data=False)
    except DecodeError:
        raise InputError(f"{graph} is no valid ONNX model.") from None
    entries = [
        {entry.key: entry.value for entry in tensor.external_data} for tensor in model.graph.initializer
    ]
    return [int(entry.get("offset", 0)) for entry in entries if entry.get("location") == location]

"""Where to cut a file into chunks, so that a tensor which did not change is not sent again.

Boundaries are the first bytes of tensors. A tensor of 1 MiB or more starts a chunk of its own and is split
every 4 MiB; runs of smaller ones are packed together. Packing starts afresh after each large tensor, so a
tensor that grows or vanishes moves no boundary beyond the next large one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgewright.manifest import CHUNK_BYTES_MAX
from edgewright_builder.artifact.tensors import tensor_places

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
    places = tensor_places(path)
    return (
        cut(size_bytes, [place.offset_bytes for place in places.values()]) if places else _split(size_bytes)
    )


def _split(size_bytes: int) -> list[int]:
    whole, rest = divmod(size_bytes, CHUNK_BYTES_MAX)
    return [CHUNK_BYTES_MAX] * whole + ([rest] if rest else [])

"""What a GGUF file leads its reader to: nothing, unless it is one part of several."""

from __future__ import annotations

import struct
from pathlib import Path

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # of the format; both are little-endian here and have 64-bit counts
_HEAD = struct.Struct("<4sIQQ")  # magic, version, tensors, metadata entries
SPLIT_KEY = b"split.count"  # of a file whose tensors lie in others, which llama.cpp finds by their names
METADATA_BYTES_MAX = 64 * 2**20  # more than any vocabulary takes


def complaint_of_gguf(path: Path) -> str | None:
    """Returns what is wrong with a GGUF file; None if it needs no other file. Reads its head and no weights.

    Raises OSError if it can't be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or not head.startswith(MAGIC):
            return f"begins with {head[:4]!r}, expected {MAGIC!r}: it is no GGUF file"
        _, version, tensors, _ = _HEAD.unpack(head)
        if version not in VERSIONS:
            return f"is of GGUF version {version}, expected {' or '.join(map(str, VERSIONS))}"
        if tensors == 0:
            return "holds no tensors"
        # A key is written with its length before it, so that no text in the vocabulary is taken for one.
        if struct.pack("<Q", len(SPLIT_KEY)) + SPLIT_KEY in file.read(METADATA_BYTES_MAX):
            return "is one part of several; write it as one file"
    return None

"""Puts the parts of a WriteBlob stream together to chunks, by its rules, in memory that does not grow."""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.chunk_delta import Delta
from edgewright.errors import InputError
from edgewright_agent.services.uploads.parts import ReceivedPart
from edgewright_agent.store import Blob, ChunkBuffer

PART_BYTES_MAX = 1024 * 1024
CHUNKS_IN_HAND = 2  # one is hashed while the other is on its way to the disk


@dataclass(frozen=True)
class Unfinished:
    """The beginning of a chunk whose stream broke. It is not verified yet: the whole chunk will be."""

    chunking: str
    chunk: int
    data: bytes


class ChunkAssembler:
    """Assembles one chunk, or its delta, after the other. Each chunk may come once."""

    def __init__(self, blob: Blob, unfinished: Unfinished | None = None) -> None:
        self.received_bytes = 0
        self._blob = blob
        longest_bytes = max((size for _, size in blob.chunks), default=0)
        count = min(len(blob.chunks), CHUNKS_IN_HAND + 1)  # one is filled while the others are written
        self._buffers = [ChunkBuffer(longest_bytes) for _ in range(max(1, count))]
        self._chunk: int | None = None
        self._filled_bytes = 0
        self._delta: Delta | None = None
        self._taken: set[int] = set()
        self._data = self._buffers[0].at(0, 0)  # of the chunk that is filled
        if unfinished is not None and unfinished.chunking == blob.chunking:
            self._chunk, self._filled_bytes = unfinished.chunk, len(unfinished.data)
            self._data = self._room()
            self._data[: self._filled_bytes] = unfinished.data
        self._may_restart = self._chunk is not None  # with another chunk: the client need not go on there

    @property
    def go_on(self) -> str:
        """Returns where a client may go on: `CHUNK OFFSET`, or nothing."""
        return "" if self._chunk is None else f"{self._chunk} {self._filled_bytes}"

    def unfinished(self) -> Unfinished | None:
        """Returns what there is of a chunk when the stream breaks."""
        if self._chunk is None or self._delta is not None or not self._filled_bytes:
            return None
        return Unfinished(self._blob.chunking, self._chunk, bytes(self._data[: self._filled_bytes]))

    def announce(self, delta: Delta) -> None:
        """Notes that the next parts are a delta. Raises InputError inside a chunk."""
        self._forget_unfinished()
        if self._chunk is not None:
            raise InputError(f"A delta came inside chunk {self._chunk}; it belongs before the first part.")
        self._begin(delta.chunk, delta)

    def add(self, part: ReceivedPart) -> bool:
        """Adds a part; returns whether the chunk is complete. Raises InputError for one out of order or bounds."""
        chunk, offset_bytes, data = part
        if not 0 < len(data) <= PART_BYTES_MAX:
            raise InputError(f"After the blob come parts of 1 to {PART_BYTES_MAX} bytes; {len(data)} came.")
        if (chunk, offset_bytes) != (self._chunk, self._filled_bytes):
            self._forget_unfinished()
        self._may_restart = False
        if self._chunk is None:
            self._begin(chunk)
        if chunk != self._chunk or offset_bytes != self._filled_bytes:
            raise InputError(
                f"Chunk {chunk} at {offset_bytes} came; "
                f"chunk {self._chunk} at {self._filled_bytes} is expected."
            )
        end = self._filled_bytes + len(data)
        if end > len(self._data):
            raise InputError(f"Chunk {chunk} has {len(self._data)} bytes to come; more came.")
        self._data[self._filled_bytes : end] = data
        self._filled_bytes = end
        self.received_bytes += len(data)
        return end == len(self._data)

    def take(self) -> tuple[int, memoryview, Delta | None]:
        """Returns the complete chunk's index, its bytes, good for `CHUNKS_IN_HAND - 1` chunks more, and its delta."""
        assert self._chunk is not None
        taken = (self._chunk, self._data, self._delta)
        self._taken.add(self._chunk)
        self._buffers.append(self._buffers.pop(0))
        self._chunk, self._filled_bytes, self._delta = None, 0, None
        return taken

    def end(self) -> None:
        """Raises InputError if the stream ended inside a chunk that it had begun or gone on with."""
        if self._chunk is not None and not self._may_restart:
            raise InputError(
                f"The stream ended inside chunk {self._chunk}, after {self._filled_bytes} of its bytes."
            )

    def _forget_unfinished(self) -> None:
        if self._may_restart:
            self._chunk, self._filled_bytes, self._may_restart = None, 0, False

    def _room(self) -> memoryview:
        """Returns where the chunk that is filled, or its delta, is put together."""
        assert self._chunk is not None
        size_bytes = self._blob.chunks[self._chunk][1] if self._delta is None else self._delta.frame_bytes
        return self._buffers[0].at(self._blob.offsets[self._chunk], size_bytes)

    def _begin(self, chunk: int, delta: Delta | None = None) -> None:
        if chunk >= len(self._blob.chunks):
            raise InputError(f"Chunk {chunk} came; the blob has {len(self._blob.chunks)} chunks.")
        if chunk in self._taken:
            raise InputError(f"Chunk {chunk} came a second time; send each chunk once.")
        self._chunk, self._delta = chunk, delta
        self._data = self._room()

"""One blob on its way in: verified chunk by chunk, durable window by window, published whole."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from edgewright.v1.common_pb2 import Reason
from edgewright_agent.errors import InputError
from edgewright_agent.store.blob import Blob, ChunkRange, from_ranges, to_ranges
from edgewright_agent.store.files import FileSystem, disk_errors, publish, sha256_of, write_durably
from edgewright_agent.store.layout import Layout

# What a power cut may cost: this much on a fast link, this long on a slow one.
FLUSH_BYTES = 64 * 1024 * 1024
FLUSH_SECONDS = 5.0


@dataclass(frozen=True)
class PartialMeta:
    """What `<sha256>.meta` says of an upload: only what has reached the disk."""

    chunking: str
    size_bytes: int
    durable_bytes: int
    durable: tuple[ChunkRange, ...]

    def to_bytes(self) -> bytes:
        """The file's content."""
        ranges = [[span.first, span.count] for span in self.durable]
        return json.dumps({**self.__dict__, "durable": ranges}, sort_keys=True).encode()


def read_meta(path: Path) -> PartialMeta | None:
    """The record of an upload, or None if there is none that makes sense."""
    try:
        fields = json.loads(path.read_bytes())
        durable = tuple(ChunkRange(first, count) for first, count in fields.pop("durable"))
        return PartialMeta(**fields, durable=durable)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


class Upload:
    """The single writer of one blob. Not thread-safe: one call at a time."""

    def __init__(self, fs: FileSystem, layout: Layout, blob: Blob) -> None:
        self.blob = blob
        self._fs = fs
        self._data = layout.partial_data(blob.sha256)
        self._meta = layout.partial_meta(blob.sha256)
        self._target = layout.blob(blob.sha256)
        self._durable: set[int] = set()
        self._written: set[int] = set()  # verified and written, not yet synced
        self._written_bytes = 0
        self._flushed_at = time.monotonic()
        with disk_errors(self._data):
            resumed = self._resume()
            self._file = self._create() if resumed is None else resumed

    @property
    def present(self) -> set[int]:
        """Chunks that need not be sent."""
        return self._durable | self._written

    def write_chunk(self, index: int, data: bytes | memoryview) -> None:
        """Verifies one whole chunk and writes it at its place.

        Raises InputError (`DIGEST_MISMATCH`) before anything is written, OutsideError (`DISK_SPACE`).
        """
        sha256, size_bytes = self.blob.chunks[index]
        actual = hashlib.sha256(data).hexdigest()
        if len(data) != size_bytes or actual != sha256:
            message = (
                f"Chunk {index} of blob {self.blob.sha256[:12]} should be {size_bytes} bytes with "
                f"SHA-256 {sha256[:12]}, but {len(data)} bytes with {actual[:12]} came. Send it again."
            )
            raise InputError(message, Reason.REASON_DIGEST_MISMATCH)
        with disk_errors(self._data):
            self._fs.write(self._file, data, self.blob.offsets[index])
        self._written.add(index)
        self._written_bytes += size_bytes
        if self._written_bytes >= FLUSH_BYTES or time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Makes what was written durable, then says so: never the other way round."""
        if not self._written:
            return
        with disk_errors(self._data):
            self._fs.sync_data(self._file)
        self._durable |= self._written
        self._written.clear()
        self._written_bytes = 0
        self._flushed_at = time.monotonic()
        self._write_meta()

    def publish(self) -> None:
        """Verifies the whole blob from the file and gives it its name in the store.

        Raises InputError: chunks are missing, or (`DIGEST_MISMATCH`) their sum is not the blob.
        """
        self.flush()
        missing = len(self.blob.chunks) - len(self._durable)
        if missing:
            message = f"Blob {self.blob.sha256[:12]} is not complete: {missing} chunks are missing."
            raise InputError(message)
        actual = sha256_of(self._data)
        if actual != self.blob.sha256:
            self._discard()
            message = f"The chunks make {actual[:12]}, not the blob {self.blob.sha256[:12]} they belong to."
            raise InputError(message, Reason.REASON_DIGEST_MISMATCH)
        with disk_errors(self._target):
            self._fs.set_read_only(self._file)
            self._fs.sync_file(self._file)
            self._fs.make_folder(self._target.parent)
            publish(self._fs, self._data, self._target)
            self._fs.unlink(self._meta)

    def close(self) -> None:
        """Lets go of the file; what was flushed stays."""
        self._fs.close(self._file)

    def _resume(self) -> int | None:
        meta = read_meta(self._meta)
        if meta is None or meta.chunking != self.blob.chunking or not self._data.is_file():
            return None
        if self._data.stat().st_size != self.blob.size_bytes:
            return None
        self._durable = from_ranges(meta.durable)
        return self._fs.open(self._data)

    def _create(self) -> int:
        self._discard()
        file = self._fs.create(self._data)
        try:
            self._fs.allocate(file, self.blob.size_bytes)
            self._fs.sync_folder(self._data.parent)
            self._write_meta()
        except BaseException:
            self._fs.close(file)
            self._discard()
            raise
        return file

    def _discard(self) -> None:
        self._fs.unlink(self._meta)  # first: data without a record is cleared at the next start
        self._fs.unlink(self._data)

    def _write_meta(self) -> None:
        durable_bytes = self.blob.bytes_of(self._durable)
        meta = PartialMeta(self.blob.chunking, self.blob.size_bytes, durable_bytes, to_ranges(self._durable))
        write_durably(self._fs, self._meta, meta.to_bytes())

"""Uploads of one blob: verified chunk by chunk, made durable window by window, published whole."""

from __future__ import annotations

import hashlib
import threading
import time

from edgewright.durable import FileSystem, disk_errors, publish, write_durably
from edgewright.errors import InputError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.store.blobs.blob import Blob, from_ranges, to_ranges
from edgewright_agent.store.blobs.direct_io import ChunkFile
from edgewright_agent.store.blobs.upload_record import PartialMeta, read_meta
from edgewright_agent.store.blobs.whole_digest import WholeDigest
from edgewright_agent.store.files.layout import Layout

# What a power cut may cost an upload: this much on a fast link, this long on a slow one.
FLUSH_BYTES = 64 * 1024 * 1024
FLUSH_SECONDS = 5.0


class Upload:
    """The single writer of one blob. Different chunks may be written at once, and `flush` may run beside that."""

    def __init__(
        self, fs: FileSystem, layout: Layout, blob: Blob, *, chunks_are_signed: bool = False
    ) -> None:
        """`chunks_are_signed`: a trusted signature says that these chunks make this blob (see `SignedChunkings`)."""
        self.blob = blob
        self._fs = fs
        self._data = layout.partial_data(blob.sha256)
        self._meta = layout.partial_meta(blob.sha256)
        self._target = layout.blob(blob.sha256)
        self._whole = None if chunks_are_signed else WholeDigest(blob)
        self._mutex = threading.Lock()  # over the sets below
        self._flushing = threading.Lock()  # one flush at a time
        self._durable: set[int] = set()
        self._syncing: set[int] = set()  # on their way to the disk
        self._written: set[int] = set()  # verified and written, not yet synced
        self._flushed_at = time.monotonic()
        with disk_errors(self._data):
            resumed = self._resume()
            self._file = self._create() if resumed is None else resumed
            self._chunks = ChunkFile(fs, self._data, self._file)

    @property
    def present(self) -> set[int]:
        """Returns the chunks that need not be sent."""
        with self._mutex:
            return self._durable | self._syncing | self._written

    @property
    def wants_order(self) -> bool:
        """Whether chunks written one after another, in order, spare reading the blob back."""
        return self._whole is not None

    @property
    def flush_is_due(self) -> bool:
        """Whether a flush beside the writing is worth it now, so that no write has to wait for one later."""
        with self._mutex:
            return self.blob.bytes_of(self._written) >= FLUSH_BYTES // 2

    def write_chunk(self, index: int, data: bytes | bytearray | memoryview) -> None:
        """Verifies one whole chunk and writes it at its place; flushes if too much is at risk.

        Raises InputError (`DIGEST_MISMATCH`: the chunk does not count), OutsideError (`DISK_SPACE`).
        """
        if index in self.present:
            return  # what is here is not put at risk by what may be wrong
        if len(data) != self.blob.chunks[index][1]:
            raise self._mismatch(index, f"{len(data)} bytes")
        actual = hashlib.sha256(data).hexdigest()
        if actual != self.blob.chunks[index][0]:
            raise self._mismatch(index, f"{len(data)} bytes with SHA-256 {actual[:12]}")
        with disk_errors(self._data):
            self._chunks.write(memoryview(data), self.blob.offsets[index])
        if self._whole is not None:
            self._whole.add(index, data)
        with self._mutex:
            self._written.add(index)
            at_risk_bytes = self.blob.bytes_of(self._written | self._syncing)
        if at_risk_bytes >= FLUSH_BYTES or time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Makes what was written durable, and only then counts it as durable.

        Chunks whose sync fails are forgotten, not tried again: the kernel may have dropped their pages and would
        report success the next time (https://lwn.net/Articles/752063/). Raises OutsideError.
        """
        with self._flushing:
            with self._mutex:
                self._syncing, self._written = self._written, set()
            if not self._syncing:
                return
            try:
                with disk_errors(self._data):
                    self._fs.sync_data(self._file)
            except BaseException:
                with self._mutex:
                    self._syncing = set()
                raise
            with self._mutex:
                self._durable |= self._syncing
                self._syncing = set()
            self._flushed_at = time.monotonic()
            self._write_meta()

    def suspend(self) -> None:
        """Keeps what there is for later. Gives the space back if there is nothing."""
        self.flush()
        if not self._durable:
            self._discard()

    def publish(self) -> None:
        """Verifies the whole blob, unless its list of chunks is signed, and gives it its name in the store.

        Raises InputError: chunks are missing, or (`DIGEST_MISMATCH`) their sum is not the blob.
        """
        with self._flushing:  # one that still runs may yet fail
            missing = len(self.blob.chunks) - len(self.present)
        if missing:
            self.suspend()
            message = f"Blob {self.blob.sha256[:12]} is not complete: {missing} chunks are missing."
            raise InputError(message)
        if self._whole is not None:
            self._check_whole(self._whole)
        with self._flushing, disk_errors(self._target):
            self._fs.set_read_only(self._file)
            self._fs.sync_file(self._file)
            self._fs.make_folder(self._target.parent)
            publish(self._fs, self._data, self._target)
            self._fs.unlink(self._meta)

    def close(self) -> None:
        """Closes the file. What was flushed stays."""
        self._chunks.close()
        self._fs.close(self._file)

    def _mismatch(self, index: int, came: str) -> InputError:
        sha256, size_bytes = self.blob.chunks[index]
        message = (
            f"Chunk {index} of blob {self.blob.sha256[:12]} should be {size_bytes} bytes with SHA-256 "
            f"{sha256[:12]}, but {came} came. Send it again."
        )
        return InputError(message, Reason.REASON_DIGEST_MISMATCH)

    def _check_whole(self, whole: WholeDigest) -> None:
        with disk_errors(self._data):
            actual = whole.finish(self._data)
        if actual != self.blob.sha256:
            self._discard()
            message = f"The chunks make {actual[:12]}, not the blob {self.blob.sha256[:12]} they belong to."
            raise InputError(message, Reason.REASON_DIGEST_MISMATCH)

    def _resume(self) -> int | None:
        meta = read_meta(self._meta)
        if meta is None or meta.chunking != self.blob.chunking or not self._data.is_file():
            return None
        if self._data.stat().st_size != self.blob.size_bytes:
            return None
        self._durable = from_ranges(meta.durable)
        self._data.chmod(0o644)  # a crash may have come just before it got its name
        return self._fs.open(self._data)

    def _create(self) -> int:
        self._discard()
        file = self._fs.create(self._data)
        try:
            self._fs.allocate(file, self.blob.size_bytes)
            self._write_meta()  # which syncs the folder, so that both names are durable or neither counts
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

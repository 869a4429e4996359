"""Finds chunks that this board already holds in some blob, so that they need not be sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from edgewright_agent.store.blobs.blob import Blob
from edgewright_agent.store.blobs.upload import Upload
from edgewright_agent.store.files.layout import Layout


@dataclass(frozen=True)
class _Place:
    blob_sha256: str
    offset_bytes: int


class ChunkIndex:
    """The chunks of stored blobs by their digest. It is rebuilt from the staged manifests at each start."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._places: dict[tuple[str, int], _Place] = {}
        self._gone: set[str] = set()

    def add_all(self, blobs: Iterable[Blob]) -> None:
        """Adds the chunks of blobs that are stored."""
        for blob in blobs:
            self._gone.discard(blob.sha256)
            for chunk, offset_bytes in zip(blob.chunks, blob.offsets, strict=True):
                self._places[chunk] = _Place(blob.sha256, offset_bytes)

    def forget(self, blob_sha256: str) -> None:
        """Removes a blob that is no longer stored."""
        self._gone.add(blob_sha256)

    def found(self, blob: Blob) -> set[int]:
        """Returns the chunks of `blob` that some stored blob holds."""
        return {index for index in range(len(blob.chunks)) if self._place(blob, index) is not None}

    def fill(self, upload: Upload) -> int:
        """Copies the chunks that are here into the upload; returns their bytes. A copy that fails its digest is left
        out.
        """
        filled_bytes = 0
        for index in sorted(self.found(upload.blob) - upload.present):
            chunk = upload.blob.chunks[index]
            data = self._read(self._places[chunk], chunk[1])
            if hashlib.sha256(data).hexdigest() == chunk[0]:
                upload.write_chunk(index, data)
                filled_bytes += len(data)
            else:
                del self._places[chunk]
        return filled_bytes

    def _place(self, blob: Blob, index: int) -> _Place | None:
        place = self._places.get(blob.chunks[index])
        return None if place is None or place.blob_sha256 in self._gone else place

    def _read(self, place: _Place, size_bytes: int) -> bytes:
        try:
            with self._layout.blob(place.blob_sha256).open("rb") as file:
                file.seek(place.offset_bytes)
                return file.read(size_bytes)
        except OSError:
            return b""  # the same as a wrong digest

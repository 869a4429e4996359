"""Finds chunks that this board already holds in some blob, so that they need not be sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from edgewright_agent.store.blobs.blob import Blob
from edgewright_agent.store.blobs.upload import Upload
from edgewright_agent.store.files.layout import Layout

_Chunk = tuple[str, int]  # its SHA-256 and its bytes


class _Place(NamedTuple):
    blob_sha256: str
    offset_bytes: int


class ChunkIndex:
    """The chunks of stored blobs by their digest. It is rebuilt from the staged manifests at each start."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._places: dict[_Chunk, tuple[_Place, ...]] = {}  # one of each blob that holds it

    def add_all(self, blobs: Iterable[Blob]) -> None:
        """Adds the chunks of blobs that are stored."""
        for blob in blobs:
            for chunk, offset_bytes in zip(blob.chunks, blob.offsets, strict=True):
                self._drop(chunk, blob.sha256)
                place = _Place(blob.sha256, offset_bytes)
                self._places[chunk] = (*self._places.get(chunk, ()), place)

    def forget(self, blob_sha256: str) -> None:
        """Removes a blob that is no longer stored."""
        for chunk in list(self._places):
            self._drop(chunk, blob_sha256)

    def found(self, blob: Blob) -> set[int]:
        """Returns the chunks of `blob` that some stored blob holds."""
        return {index for index, chunk in enumerate(blob.chunks) if chunk in self._places}

    def fill(self, upload: Upload) -> int:
        """Copies the chunks that are here into the upload; returns their bytes. A copy that fails its digest is left
        out.
        """
        filled_bytes = 0
        for index in sorted(self.found(upload.blob) - upload.present):
            data = self._read(upload.blob.chunks[index])
            if data is not None:
                upload.write_chunk(index, data)
                filled_bytes += len(data)
        return filled_bytes

    def _read(self, chunk: _Chunk) -> bytes | None:
        """Returns the chunk from the first blob that holds it as it should be. Drops the places where it does not."""
        sha256, size_bytes = chunk
        for place in self._places.get(chunk, ()):
            data = self._read_at(place, size_bytes)
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
            self._drop(chunk, place.blob_sha256)
        return None

    def _drop(self, chunk: _Chunk, blob_sha256: str) -> None:
        left = tuple(place for place in self._places.get(chunk, ()) if place.blob_sha256 != blob_sha256)
        if left:
            self._places[chunk] = left
        else:
            self._places.pop(chunk, None)

    def _read_at(self, place: _Place, size_bytes: int) -> bytes:
        try:
            with self._layout.blob(place.blob_sha256).open("rb") as file:
                file.seek(place.offset_bytes)
                return file.read(size_bytes)
        except OSError:
            return b""  # the same as a wrong digest

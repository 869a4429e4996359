"""What travels instead of a chunk: a zstd frame of the chunk XOR what an earlier artifact has in its place.

A tensor is found by its name wherever it lies in the earlier artifact; bytes that belong to no tensor are compared
with the same offset of the same file. A frame is used only where it is smaller than the chunk. Where the earlier bytes
do not halve it, the chunk compressed alone is tried too.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import zstandard

from edgewright.chunk_delta import STRETCHES_MAX, WINDOW_BYTES_MAX, Stretch, xor
from edgewright.manifest import File
from edgewright_agent.store import Blob
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.artifact.tensors import TensorPlace, tensor_places

LEVEL = 6
WINDOW_LOG = WINDOW_BYTES_MAX.bit_length() - 1

ChunkKey = tuple[str, int]  # (SHA-256 of the file, index of the chunk)


@dataclass(frozen=True)
class Frame:
    """One chunk as it travels."""

    base: tuple[Stretch, ...]  # empty: the chunk alone, compressed
    data: bytes


@dataclass(frozen=True)
class _Segment:
    """A stretch of a new file, and where its counterpart lies in the earlier artifact."""

    begin: int
    end: int
    file: File
    offset_bytes: int

    def within(self, begin: int, end: int) -> Stretch | None:
        """Returns the part of it inside a chunk [begin, end), relative to the chunk."""
        first, last = max(begin, self.begin), min(end, self.end)
        if first >= last:
            return None
        return Stretch(first - begin, last - first, self.file.sha256, self.offset_bytes + first - self.begin)


class DeltaMaker:
    """Makes frames of one artifact against one earlier artifact that stands on this disk."""

    def __init__(self, new: Artifact, old: Artifact) -> None:
        self.new, self.old = new, old
        self._old_files = {file.sha256: file for file in old.manifest.files}
        self._old_tensors = tensors_of(old, _places_if_readable)
        self._segments = {file.sha256: self._segments_of(file) for file in new.manifest.files}
        self._offsets = {file.sha256: Blob.of_file(file).offsets for file in new.manifest.files}

    def frame(self, file: File, index: int) -> Frame | None:
        """Returns the chunk in fewer bytes, or None where there is no way."""
        begin, size_bytes = self._offsets[file.sha256][index], file.chunks[index].size_bytes
        chunk = _read(self.new, file, begin, size_bytes)
        candidates = []
        stretches = self._stretches(file, begin, begin + size_bytes)
        if 0 < len(stretches) <= STRETCHES_MAX:
            candidates.append(Frame(stretches, _compress(xor(chunk, self._base(stretches, size_bytes)))))
        if not candidates or _wire_bytes(candidates[0]) > size_bytes // 2:  # a good delta needs no rival
            candidates.append(Frame((), _compress(chunk)))
        best = min(candidates, key=_wire_bytes)
        return best if _wire_bytes(best) < size_bytes else None

    def _stretches(self, file: File, begin: int, end: int) -> tuple[Stretch, ...]:
        stretches = (segment.within(begin, end) for segment in self._segments[file.sha256])
        return tuple(_joined(stretch for stretch in stretches if stretch is not None))

    def _base(self, stretches: Iterable[Stretch], size_bytes: int) -> bytes:
        base = bytearray(size_bytes)
        for stretch in stretches:
            old = _read(
                self.old,
                self._old_files[stretch.blob_sha256],
                stretch.blob_offset_bytes,
                stretch.size_bytes,
            )
            base[stretch.offset_bytes : stretch.offset_bytes + len(old)] = old
        return bytes(base)

    def _segments_of(self, file: File) -> list[_Segment]:
        segments = []
        for name, place in _places_if_readable(self.new.path(file)).items():
            counterpart = self._old_tensors.get(name)
            if counterpart is not None and counterpart[1].size_bytes == place.size_bytes > 0:
                old_file, old_place = counterpart
                end = place.offset_bytes + place.size_bytes
                segments.append(_Segment(place.offset_bytes, end, old_file, old_place.offset_bytes))
        segments.sort(key=lambda segment: segment.begin)
        same_path = next((old for old in self.old.manifest.files if old.path == file.path), None)
        return _without_overlaps(segments if same_path is None else _with_gaps(segments, file, same_path))


class Frames:
    """Frames of many chunks, made once and kept in a temporary file. Thread-safe."""

    def __init__(self, maker: DeltaMaker) -> None:
        self.maker = maker
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this
        self._places: dict[ChunkKey, tuple[Frame, TensorPlace] | None] = {}
        self._lock = threading.Lock()

    def make(self, file: File, indices: Iterable[int]) -> None:
        """Makes the frames of these chunks that are not made yet."""
        for index in indices:
            with self._lock:
                if (file.sha256, index) not in self._places:
                    self._places[file.sha256, index] = self._keep(self.maker.frame(file, index))

    def size_bytes(self, sha256: str, index: int) -> int | None:
        """Bytes that travel for a chunk; None where it travels as it is."""
        entry = self._places.get((sha256, index))
        return None if entry is None else entry[1].size_bytes

    def get(self, sha256: str, index: int) -> Frame | None:
        """Returns the frame of a chunk, None where it travels as it is."""
        entry = self._places.get((sha256, index))
        if entry is None:
            return None
        frame, place = entry
        with self._lock:
            self._file.seek(place.offset_bytes)
            return replace(frame, data=self._file.read(place.size_bytes))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _keep(self, frame: Frame | None) -> tuple[Frame, TensorPlace] | None:
        if frame is None:
            return None
        offset_bytes = self._file.seek(0, 2)
        self._file.write(frame.data)
        return replace(frame, data=b""), TensorPlace(offset_bytes, len(frame.data))


def tensors_of(
    artifact: Artifact, places_in: Callable[[Path], dict[str, TensorPlace]] = tensor_places
) -> dict[str, tuple[File, TensorPlace]]:
    """Returns an artifact's tensors by name; the first file wins where two have the name."""
    places: dict[str, tuple[File, TensorPlace]] = {}
    for file in artifact.manifest.files:
        for name, place in places_in(artifact.path(file)).items():
            places.setdefault(name, (file, place))
    return places


def _places_if_readable(path: Path) -> dict[str, TensorPlace]:
    try:
        return tensor_places(path)
    except ModuleNotFoundError:
        return {}  # a host that only pushes may lack onnx: then files are compared offset by offset


def _with_gaps(segments: list[_Segment], file: File, same_path: File) -> list[_Segment]:
    """Fills what no tensor covers from the same offsets of the earlier file."""
    filled: list[_Segment] = []
    end = 0
    for segment in [*segments, _Segment(file.size_bytes, file.size_bytes, same_path, 0)]:
        gap_end = min(segment.begin, same_path.size_bytes)
        if gap_end > end:
            filled.append(_Segment(end, gap_end, same_path, end))
        filled.append(segment)
        end = max(end, segment.end)
    return filled[:-1]


def _without_overlaps(segments: list[_Segment]) -> list[_Segment]:
    """Tensors that share bytes are counted once."""
    kept: list[_Segment] = []
    for segment in segments:
        if not kept or segment.begin >= kept[-1].end:
            kept.append(segment)
    return kept


def _joined(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Neighbours that are neighbours in the earlier file too become one."""
    joined: list[Stretch] = []
    for stretch in stretches:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.blob_sha256 == stretch.blob_sha256
            and last.offset_bytes + last.size_bytes == stretch.offset_bytes
            and last.blob_offset_bytes + last.size_bytes == stretch.blob_offset_bytes
        ):
            joined[-1] = replace(last, size_bytes=last.size_bytes + stretch.size_bytes)
        else:
            joined.append(stretch)
    return joined


def _wire_bytes(frame: Frame) -> int:
    return len(frame.data) + 64 * len(frame.base)  # a stretch is about 50 bytes on the wire


def _compress(data: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, source_size=len(data), window_log=WINDOW_LOG
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def _read(artifact: Artifact, file: File, offset_bytes: int, size_bytes: int) -> bytes:
    with artifact.path(file).open("rb") as source:
        source.seek(offset_bytes)
        return source.read(size_bytes)

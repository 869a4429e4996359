"""Which frames a push sends instead of chunks: finds what board and host both have, and makes them once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import EdgewrightError
from edgewright.manifest import File
from edgewright.v1.deployment_pb2 import (
    BaseStretch,
    ChunkDelta,
    MissingBlob,
    Release,
    ReleaseState,
    WriteBlobRequest,
)
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.artifact.delta_encoding import DeltaMaker, Frame, Frames
from edgewright_builder.device_client.blob_parts import PART_BYTES, PartMessage, encode_part
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.push import pushed_before

# What serves is the likeliest ancestor; a candidate may yet be rolled back, and denied ones be deleted.
_ORDER = (
    ReleaseState.RELEASE_STATE_ACTIVE,
    ReleaseState.RELEASE_STATE_PREVIOUS,
    ReleaseState.RELEASE_STATE_STAGED,
)


@dataclass(frozen=True)
class DeltaSources:
    """Where earlier artifacts may be found on this machine, besides those pushed before."""

    folders: tuple[Path, ...] = ()


class Deltas:
    """The frames for one artifact, shared by all boards that have the same earlier release."""

    def __init__(self, artifact: Artifact, sources: DeltaSources) -> None:
        self._artifact = artifact
        self._sources = sources
        self._frames: dict[str, Frames] = {}
        self._lock = threading.Lock()

    async def frames_for(
        self, client: DeviceClient, missing: Sequence[MissingBlob], note: Callable[[str], None]
    ) -> Frames | None:
        """Returns frames of the missing chunks against a release that board and host have; None without one."""
        if not missing:
            return None
        digests = base_candidates(await client.list_releases())
        base = await asyncio.to_thread(pushed_before.find, digests, self._sources.folders)
        if base is None or base.digest == self._artifact.digest:
            return None
        try:
            return await asyncio.to_thread(self._make, base, missing)
        except (OSError, EdgewrightError) as error:  # another push may have just forgotten it
            note(f"The chunks themselves follow; no delta against release {base.digest[:12]}: {error}")
            return None

    def close(self) -> None:
        """Closes the files of the frames."""
        for frames in self._frames.values():
            frames.close()

    def remember(self) -> None:
        """Keeps the artifact for the deltas of later ones. Raises OSError."""
        with self._lock:  # every board of a fleet asks for it
            pushed_before.remember(self._artifact)

    def _make(self, base: Artifact, missing: Sequence[MissingBlob]) -> Frames:
        with self._lock:
            if base.digest not in self._frames:
                self._frames[base.digest] = Frames(DeltaMaker(self._artifact, base))
        frames = self._frames[base.digest]
        files = {bytes.fromhex(file.sha256): file for file in self._artifact.manifest.files}
        for blob in missing:
            frames.make(files[blob.sha256], chunk_indices(blob))
        return frames


@contextlib.contextmanager
def deltas_from(artifact: Artifact, sources: DeltaSources | None) -> Iterator[Deltas | None]:
    """Frames for as long as a push or a rollout lasts; None where no delta is wanted."""
    if sources is None:
        yield None
        return
    with contextlib.closing(Deltas(artifact, sources)) as deltas:
        yield deltas


def base_candidates(releases: Sequence[Release]) -> list[str]:
    """Digests of the releases to take a delta from, the likeliest ancestor first."""
    usable = [release for release in releases if release.state in _ORDER]
    usable.sort(key=lambda release: (_ORDER.index(release.state), -release.release_counter))
    return [release.release.hex() for release in usable]


def chunk_indices(missing: MissingBlob) -> list[int]:
    """Returns the chunks that a board lacks, in order."""
    return [index for span in missing.chunks for index in range(span.first, span.first + span.count)]


def travelling_bytes(files: dict[bytes, File], missing: Sequence[MissingBlob], frames: Frames | None) -> int:
    """Bytes that go over the link for what is missing."""
    if frames is None:
        return sum(blob.missing_bytes for blob in missing)
    return sum(
        chunk_bytes(files[blob.sha256], index, frames) for blob in missing for index in chunk_indices(blob)
    )


def chunk_bytes(file: File, index: int, frames: Frames | None) -> int:
    """Bytes that go over the link for one chunk."""
    in_frame = None if frames is None else frames.size_bytes(file.sha256, index)
    return file.chunks[index].size_bytes if in_frame is None else in_frame


async def frame_parts(frames: Frames, sha256: str, indices: Sequence[int]) -> AsyncIterator[PartMessage]:
    """Yields the messages of WriteBlob that carry the frames of these chunks."""
    for index in indices:
        frame = await asyncio.to_thread(frames.get, sha256, index)
        assert frame is not None, "the caller asks for chunks that have one"
        yield PartMessage(_announcement(index, frame), 0)
        view = memoryview(frame.data)
        for offset_bytes in range(0, len(view), PART_BYTES):
            part = view[offset_bytes : offset_bytes + PART_BYTES]
            yield PartMessage(encode_part(index, offset_bytes, part), len(part))


def _announcement(index: int, frame: Frame) -> bytes:
    base = [
        BaseStretch(
            offset_bytes=stretch.offset_bytes,
            size_bytes=stretch.size_bytes,
            blob_sha256=bytes.fromhex(stretch.blob_sha256),
            blob_offset_bytes=stretch.blob_offset_bytes,
        )
        for stretch in frame.base
    ]
    delta = ChunkDelta(chunk=index, size_bytes=len(frame.data), base=base)
    return WriteBlobRequest(delta=delta).SerializeToString()

"""The store's front door: what is here, what is missing, what may go."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edgewright.v1.common_pb2 import Reason
from edgewright_agent.errors import BusyError, InputError, OutsideError, RefusedError
from edgewright_agent.manifest import Manifest, manifest_digest
from edgewright_agent.store.blob import Blob, Missing, WriteStatus, to_ranges
from edgewright_agent.store.chunks import ChunkIndex
from edgewright_agent.store.files import FileSystem, disk_errors, publish, sha256_of
from edgewright_agent.store.layout import Layout
from edgewright_agent.store.recovery import recover
from edgewright_agent.store.releases import StagedRelease, build_release, heal_release, remove_release
from edgewright_agent.store.state_file import StateFile
from edgewright_agent.store.upload import Upload, read_meta

PROTECTED_SECONDS = 3600.0  # how long a blob that was asked about is kept
PARTIAL_SECONDS = 24 * 3600.0  # how long an upload may lie idle


@dataclass(frozen=True)
class Space:
    """How much the store may take."""

    quota_bytes: int | None = None  # blobs and uploads together; None: as the disk allows
    reserve_bytes: int = 512 * 1024 * 1024  # of the disk, never touched


class Store:
    """Blobs, uploads and releases under one root. Thread-safe; every method blocks on the disk."""

    def __init__(
        self,
        root: Path,
        *,
        space: Space = Space(),
        fs: FileSystem | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the store's lock and clears what a crash left behind.

        Raises InputError if another agent holds the store or its layout is a newer one.
        """
        self.layout = Layout(root)
        self._fs = fs or FileSystem()
        self._space = space
        self._clock = clock
        self._mutex = threading.RLock()
        with disk_errors(root):
            self._fs.make_folder(root)
        self._lock = _take_lock(self.layout.lock)
        found = recover(self._fs, self.layout)
        self._sizes = found.blob_bytes
        self._releases = {release.digest: release for release in found.releases}
        self._asked = dict.fromkeys(self._sizes.keys() - self._needed(), clock())
        self._writing: set[str] = set()
        self._chunks = ChunkIndex(self.layout)
        for release in found.releases:
            self._chunks.add_all(Blob.of_file(file) for file in release.manifest.files)
        self.state = StateFile(self._fs, self.layout.state)

    def close(self) -> None:
        """Lets another agent have the store."""
        os.close(self._lock)

    # Blobs

    def missing(self, blobs: Iterable[Blob]) -> list[Missing]:
        """Of these blobs, in their order, those that are not here, and the chunks no other blob holds."""
        with self._mutex:
            return [self._missing(blob) for blob in blobs if not self._ask(blob.sha256)]

    def begin_upload(self, blob: Blob) -> Upload | None:
        """The writer of this blob, with its disk space claimed and every chunk that is here filled in.

        None if the blob is present. Hand the writer to `end_upload`, whatever happens.
        Raises BusyError if the blob has a writer, OutsideError (`DISK_SPACE`).
        """
        with self._mutex:
            if self._ask(blob.sha256):
                return None
            if blob.sha256 in self._writing:
                raise BusyError(f"Another upload of blob {blob.sha256[:12]} is under way. Try again later.")
            self._make_room(blob)
            self._writing.add(blob.sha256)
        try:
            upload = Upload(self._fs, self.layout, blob)
        except BaseException:
            self._writing.discard(blob.sha256)
            raise
        try:
            self._chunks.fill(upload)
        except BaseException:
            self.end_upload(upload)
            raise
        return upload

    def end_upload(self, upload: Upload, *, complete: bool = False) -> None:
        """Publishes the blob if `complete`, else keeps what is durable of it. Raises as `Upload.publish`."""
        try:
            if complete:
                upload.publish()
                with self._mutex:
                    self._sizes[upload.blob.sha256] = upload.blob.size_bytes
                    self._ask(upload.blob.sha256)
                    self._chunks.add_all([upload.blob])
                    for release in self._releases.values():
                        heal_release(self._fs, self.layout, release, upload.blob.sha256)
            else:
                upload.flush()
        finally:
            upload.close()
            self._writing.discard(upload.blob.sha256)

    def write_status(self, sha256: str) -> WriteStatus:
        """What of this blob is durable. Raises RefusedError (`UPLOAD_UNKNOWN`)."""
        with self._mutex:
            if sha256 in self._sizes:
                return WriteStatus(True, self._sizes[sha256], ())
        meta = read_meta(self.layout.partial_meta(sha256))
        if meta is None:
            message = f"There is neither a blob nor an upload of {sha256[:12]}. Send it with WriteBlob."
            raise RefusedError(message, Reason.REASON_UPLOAD_UNKNOWN)
        return WriteStatus(False, meta.durable_bytes, meta.durable)

    # Releases

    def releases(self) -> dict[str, StagedRelease]:
        """Every staged release by the SHA-256 of its manifest."""
        with self._mutex:
            return dict(self._releases)

    def release(self, digest: str) -> StagedRelease:
        """One staged release. Raises RefusedError (`RELEASE_UNKNOWN`)."""
        with self._mutex:
            if digest in self._releases:
                return self._releases[digest]
        message = f"No release {digest[:12]} is staged here. Push its artifact first."
        raise RefusedError(message, Reason.REASON_RELEASE_UNKNOWN)

    def absent_blobs(self, manifest: Manifest) -> list[str]:
        """SHA-256 of the manifest's files that are not here; the others are kept for an hour."""
        with self._mutex:
            return [sha256 for sha256 in _blobs_of(manifest) if not self._ask(sha256)]

    def stage(self, manifest: Manifest, manifest_bytes: bytes, signature: bytes) -> StagedRelease:
        """Verifies every blob from the disk once more and builds the release from them.

        The caller has checked the signature and that no blob is absent. Raises OutsideError
        (`STORE_CORRUPT`: the blob is put in quarantine and has to be sent again; `DISK_SPACE`).
        """
        self.verify(manifest)
        with self._mutex:
            staged = self._releases.get(manifest_digest(manifest_bytes))
            if staged is not None:
                return staged
            release = build_release(self._fs, self.layout, manifest, manifest_bytes, signature)
            self._releases[release.digest] = release
            self._chunks.add_all(Blob.of_file(file) for file in manifest.files)
            for sha256 in _blobs_of(manifest):
                self._asked.pop(sha256, None)  # from now on the release keeps it
            return release

    def verify(self, manifest: Manifest) -> None:
        """Reads every blob of the manifest and compares its digest. Raises as `stage`."""
        for sha256 in _blobs_of(manifest):
            self._verify(sha256)

    def delete_release(self, digest: str) -> int:
        """Forgets a release; returns the bytes of the blobs that went with it. Raises as `release`."""
        with self._mutex:
            self.release(digest)
            remove_release(self._fs, self.layout, digest)
            del self._releases[digest]
            return self.collect()

    # Space

    def free_bytes(self) -> int:
        """What the store may still take."""
        free = shutil.disk_usage(self.layout.root).free - self._space.reserve_bytes
        if self._space.quota_bytes is not None:
            with self._mutex:
                taken = sum(self._sizes.values()) + sum(found.st_size for found in self._partials().values())
            free = min(free, self._space.quota_bytes - taken)
        return max(0, free)

    def collect(self) -> int:
        """Removes blobs no release needs and uploads nobody continues; returns the bytes freed.

        Keeps what was asked about within the last hour: somebody may be about to stage it.
        """
        with self._mutex:
            freed_bytes = self._collect_partials()
            for sha256 in self._sizes.keys() - self._needed():
                if self._clock() - self._asked.get(sha256, -PROTECTED_SECONDS) >= PROTECTED_SECONDS:
                    with disk_errors(self.layout.blob(sha256)):
                        self._fs.unlink(self.layout.blob(sha256))
                    freed_bytes += self._forget(sha256)
            return freed_bytes

    def _ask(self, sha256: str) -> bool:
        if sha256 not in self._sizes:
            return False
        self._asked[sha256] = self._clock()
        return True

    def _missing(self, blob: Blob) -> Missing:
        here = self._chunks.found(blob)
        meta = read_meta(self.layout.partial_meta(blob.sha256))
        if meta is not None and meta.chunking == blob.chunking:
            here |= {index for span in meta.durable for index in range(span.first, span.first + span.count)}
        lacking = set(range(len(blob.chunks))) - here
        return Missing(blob.sha256, to_ranges(lacking), blob.bytes_of(lacking))

    def _make_room(self, blob: Blob) -> None:
        if self.layout.partial_data(blob.sha256).exists():
            return  # its space was claimed when it began
        if blob.size_bytes > self.free_bytes():
            self.collect()
        free_bytes = self.free_bytes()
        if blob.size_bytes > free_bytes:
            message = (
                f"The store is full: blob {blob.sha256[:12]} needs {blob.size_bytes} bytes, "
                f"{free_bytes} are free within quota and reserve. Delete a release."
            )
            raise OutsideError(message, Reason.REASON_DISK_SPACE)

    def _verify(self, sha256: str) -> None:
        path = self.layout.blob(sha256)
        try:
            actual = sha256_of(path)
        except OSError as error:
            actual = f"unreadable ({error.strerror})"
        if actual == sha256:
            return
        with self._mutex, disk_errors(path):
            if path.exists():
                publish(self._fs, path, self.layout.quarantine / f"{sha256}.{time.time_ns()}")
            self._forget(sha256)
        message = f"Stored blob {sha256[:12]} is now {actual[:24]}; it was put in quarantine. Push it again."
        raise OutsideError(message, Reason.REASON_STORE_CORRUPT)

    def _forget(self, sha256: str) -> int:
        self._asked.pop(sha256, None)
        self._chunks.forget(sha256)
        return self._sizes.pop(sha256, 0)

    def _collect_partials(self) -> int:
        freed_bytes = 0
        for sha256, found in self._partials().items():
            if sha256 not in self._writing and time.time() - found.st_mtime >= PARTIAL_SECONDS:
                freed_bytes += found.st_size
                self._fs.unlink(self.layout.partial_meta(sha256))
                self._fs.unlink(self.layout.partial_data(sha256))
        return freed_bytes

    def _partials(self) -> dict[str, os.stat_result]:
        """Uploads by their blob. One that is published while this looks is left out."""
        found = {}
        for path in self.layout.partial.glob("*.data"):
            with contextlib.suppress(FileNotFoundError):
                found[path.stem] = path.stat()
        return found

    def _needed(self) -> set[str]:
        return {sha256 for release in self._releases.values() for sha256 in _blobs_of(release.manifest)}


def _blobs_of(manifest: Manifest) -> list[str]:
    return sorted({file.sha256 for file in manifest.files})


def _take_lock(path: Path) -> int:
    with disk_errors(path):
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        message = f"The store {path.parent} is held by another agent. Stop it, or choose another --store."
        raise InputError(message, Reason.REASON_BUSY) from None
    return lock

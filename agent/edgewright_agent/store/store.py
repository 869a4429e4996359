"""The store: blobs, uploads, releases, and the space they take."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from edgewright.durable import FileSystem, Pace, disk_errors
from edgewright.errors import BusyError, OutsideError, RefusedError
from edgewright.folders import refuse_file
from edgewright.manifest import File, Manifest, manifest_digest
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.store.adapter_bases import check_base, check_unneeded
from edgewright_agent.store.blobs.blob import Blob, Missing, WriteStatus, to_ranges
from edgewright_agent.store.blobs.index import BlobIndex, corrupt_blob
from edgewright_agent.store.blobs.upload import Upload
from edgewright_agent.store.blobs.upload_record import read_meta
from edgewright_agent.store.blobs.verified import SignedChunkings
from edgewright_agent.store.counters import Traffic
from edgewright_agent.store.files.layout import Layout
from edgewright_agent.store.files.lock import take_lock
from edgewright_agent.store.files.releases import (
    StagedRelease,
    build_release,
    clear_unlisted,
    heal_release,
    read_release,
    remove_release,
    resign_release,
    write_records,
)
from edgewright_agent.store.files.state_file import StateFile
from edgewright_agent.store.upkeep.collection import find_garbage, remove_garbage
from edgewright_agent.store.upkeep.garbage import Garbage
from edgewright_agent.store.upkeep.space import (
    Space,
    disk_bytes,
    free_bytes,
    partials,
    prepared_bytes,
    require_room,
)
from edgewright_agent.store.upkeep.store_recovery import recover


class Store:
    """The blobs, uploads and releases under one root. Thread-safe; every method blocks on the disk."""

    def __init__(
        self,
        root: Path,
        *,
        space: Space = Space(),
        fs: FileSystem | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the store's lock and clears what a crash left behind.

        Raises InputError if another agent holds the store, its layout is a newer one or `root` is a file.
        """
        refuse_file(root)
        self.layout = Layout(root)
        self.fs = fs or FileSystem()
        self._space = space
        self._mutex = threading.RLock()
        with disk_errors(root):
            self.fs.make_folder(root)
        self._lock = take_lock(self.layout.lock)
        try:
            found = recover(self.fs, self.layout)
        except BaseException:
            self.close()
            raise
        self._releases = {release.digest: release for release in found.releases}
        self._blobs = BlobIndex(self.fs, self.layout, found.blob_bytes, clock)
        for sha256 in found.blob_bytes.keys() - self._needed():
            self._blobs.ask(sha256)  # so that a restart does not cost what was on its way
        self._writing: dict[str, int] = {}  # bytes promised to each upload that has a writer
        self._scrub_mutex = threading.Lock()
        self._signed_chunkings = SignedChunkings()
        self.traffic = Traffic()
        for release in found.releases:
            here = [file for file in release.manifest.files if file.sha256 in found.blob_bytes]
            self._blobs.chunks.add_all(Blob.of_file(file) for file in here)
        self.state = StateFile(self.fs, self.layout.state)

    def close(self) -> None:
        """Releases the store's lock."""
        os.close(self._lock)

    # Blobs

    def missing(self, blobs: Iterable[Blob]) -> list[Missing]:
        """Returns those of these blobs that are not here, in their order, and the chunks that no other blob holds."""
        with self._mutex:
            return [self._missing(blob) for blob in blobs if not self._blobs.ask(blob.sha256)]

    def begin_upload(self, blob: Blob) -> Upload | None:
        """Returns the writer of this blob, with its disk space claimed and every chunk that is here filled in.

        None if the blob is present. Hand the writer to `end_upload`, whatever happens. Raises BusyError if the blob
        has a writer, OutsideError (`DISK_SPACE`).
        """
        with self._mutex:
            if self._blobs.ask(blob.sha256):
                return None
            if blob.sha256 in self._writing:
                raise BusyError(f"Another upload of blob {blob.sha256[:12]} is under way. Try again later.")
            self._make_room(blob)
            self._writing[blob.sha256] = blob.size_bytes
        try:
            upload = Upload(self.fs, self.layout, blob, chunks_are_signed=self._signed_chunkings.covers(blob))
        except BaseException:
            self._end_writing(blob)
            raise
        try:
            self.traffic.came("dedup", self._blobs.chunks.fill(upload))
        except BaseException:
            self.end_upload(upload)
            raise
        return upload

    def end_upload(self, upload: Upload, *, complete: bool = False) -> None:
        """Publishes the blob if `complete`, else keeps what is durable of it. Raises as `Upload.publish`."""
        try:
            if complete:
                upload.publish()
                self._take_in(upload.blob)
            else:
                upload.suspend()
        finally:
            upload.close()
            self._end_writing(upload.blob)

    def write_status(self, sha256: str) -> WriteStatus:
        """Returns how much of this blob is durable. Raises RefusedError (`UPLOAD_UNKNOWN`)."""
        with self._mutex:
            if sha256 in self._blobs.sizes:
                return WriteStatus(True, self._blobs.sizes[sha256], ())
        meta = read_meta(self.layout.partial_meta(sha256))
        if meta is None:
            message = f"There is neither a blob nor an upload of {sha256[:12]}. Send it with WriteBlob."
            raise RefusedError(message, Reason.REASON_UPLOAD_UNKNOWN)
        return WriteStatus(False, meta.durable_bytes, meta.durable)

    # Releases

    def releases(self) -> dict[str, StagedRelease]:
        """Returns every staged release by the SHA-256 of its manifest."""
        with self._mutex:
            return dict(self._releases)

    def release(self, digest: str) -> StagedRelease:
        """Returns one staged release. Raises RefusedError (`RELEASE_UNKNOWN`)."""
        with self._mutex:
            if digest in self._releases:
                return self._releases[digest]
        message = f"No release {digest[:12]} is staged here. Push its artifact first."
        raise RefusedError(message, Reason.REASON_RELEASE_UNKNOWN)

    def learn_chunkings(self, manifest: Manifest) -> None:
        """Learns from a manifest with a trusted signature which chunks make which blob."""
        with self._mutex:
            self._signed_chunkings.add(manifest)

    def absent_blobs(self, manifest: Manifest) -> list[str]:
        """Returns the SHA-256 of the manifest's files that are not here. The others are kept for an hour."""
        with self._mutex:
            return [sha256 for sha256 in _blobs_of(manifest) if not self._blobs.ask(sha256)]

    def stage(self, manifest: Manifest, manifest_bytes: bytes, signature: bytes) -> StagedRelease:
        """Verifies every blob that was not published just now, and builds the release from them.

        A release that is staged is left as it is, or repaired if it is not whole any more. The caller has
        checked the signature and that no blob is absent. Raises OutsideError (`STORE_CORRUPT`: the blob is
        put in quarantine and has to be sent again; `DISK_SPACE`), and as `check_base`.
        """
        staged = self.releases().get(manifest_digest(manifest_bytes))
        if staged is not None and read_release(staged.folder) is not None:
            return staged
        for sha256 in _blobs_of(manifest):
            if not self._blobs.is_fresh(sha256):
                self.verify_blob(sha256)
        with self._mutex:
            staged = self._releases.get(manifest_digest(manifest_bytes))
            if staged is not None:
                write_records(self.fs, staged.folder, manifest_bytes, signature)
                return staged
            check_base(manifest, self._releases)  # it was there when the caller looked
            release = build_release(self.fs, self.layout, manifest, manifest_bytes, signature)
            self._releases[release.digest] = release
            self._blobs.chunks.add_all(Blob.of_file(file) for file in manifest.files)
            for sha256 in _blobs_of(manifest):
                self._blobs.settle(sha256)
            return release

    def resign(self, digest: str, signature: bytes) -> None:
        """Keeps a later signature of a staged release, which counts from now on. Raises as `release`, OutsideError."""
        release = self.release(digest)
        with self._mutex, disk_errors(release.folder):
            resign_release(self.fs, release.folder, signature)

    def verify(self, manifest: Manifest) -> None:
        """Reads every blob of the manifest and compares its digest. Raises as `stage`."""
        for sha256 in _blobs_of(manifest):
            self.verify_blob(sha256)

    def verify_release(self, release: StagedRelease) -> None:
        """Reads all that an engine is about to load, and the records that name it. Raises as `stage`."""
        self.verify(release.manifest)
        with self._mutex:
            clear_unlisted(self.fs, self.layout, release.manifest, release.folder)
            heal_release(self.fs, self.layout, release.manifest, release.folder)
        if read_release(release.folder) is None:
            message = f"The files of release {release.digest[:12]} are corrupt. Push its artifact again."
            raise OutsideError(message, Reason.REASON_STORE_CORRUPT)

    def verify_blob(self, sha256: str, pace: Pace | None = None) -> None:
        """Reads one blob and compares its digest, as the disk holds it if there is a `pace`. Raises as `stage`."""
        actual = self._blobs.digest_of(sha256, pace)
        if actual == sha256:
            return
        with self._mutex:
            if self._blobs.put_in_quarantine(sha256):
                self.traffic.found_corrupt()
        raise corrupt_blob(sha256, actual)

    def verified_blob(self, file: File) -> Path:
        """Returns where the bytes of a manifest's file lie, read and compared with its digest. Raises as `stage`."""
        if not self._blobs.is_fresh(file.sha256):
            self.verify_blob(file.sha256)
        return self.layout.blob(file.sha256)

    def was_lost(self, sha256: str) -> bool:
        """Whether a release lacks this blob."""
        with self._mutex:
            return sha256 not in self._blobs.sizes and (
                sha256 in self._needed() or any(self.layout.quarantine.glob(f"{sha256}.*"))
            )

    def delete_release(self, digest: str) -> int:
        """Deletes a release; returns the bytes of the blobs, and of its prepared engine, that went with it.

        Raises as `release`.
        """
        with self._mutex:
            self.release(digest)
            check_unneeded(digest, self._releases)
            freed_bytes = prepared_bytes(self.layout, [digest])
            try:
                remove_release(self.fs, self.layout, digest)
            finally:
                if not self.layout.release(digest).exists():  # the name goes first; the rest may fail
                    del self._releases[digest]
            return freed_bytes + self.collect().freed_bytes

    # Space

    def blob_bytes(self) -> dict[str, int]:
        """Returns the size of each stored blob by its SHA-256."""
        with self._mutex:
            return dict(self._blobs.sizes)

    def free_bytes(self) -> int:
        """Returns what the store may still take."""
        with self._mutex:
            taken_bytes = sum(self._blobs.sizes.values()) + self.prepared_bytes()
            return free_bytes(self._space, self.layout, taken_bytes, self._writing)

    def prepared_bytes(self) -> int:
        """Returns the disk space of what was made of the releases for their engines."""
        return prepared_bytes(self.layout, self.releases())

    def quarantined_files(self) -> int:
        """Returns how many things are in quarantine."""
        return sum(1 for _ in self.layout.quarantine.iterdir())

    def bytes_by_state(self) -> dict[str, int]:
        """Returns the bytes that are stored, prepared for engines, half there, in quarantine, and free."""
        return {
            "stored": sum(self.blob_bytes().values()),
            "prepared": self.prepared_bytes(),
            "partial": disk_bytes(self.layout.partial),
            "quarantine": disk_bytes(self.layout.quarantine),
            "free": self.free_bytes(),
        }

    def collect(self, *, dry_run: bool = False, quarantine: bool = False) -> Garbage:
        """Removes what `choose_garbage` chooses, and what is in quarantine if `quarantine` is set.

        It holds the same lock as staging: a blob is either needed already, or was asked about just now.
        """
        with self._mutex:
            garbage = find_garbage(
                self.layout, self._blobs, needed=self._needed(), writing=self._writing, quarantine=quarantine
            )
            if not dry_run:
                remove_garbage(self.fs, self.layout, self._blobs, garbage, quarantine=quarantine)
            return garbage

    @property
    def is_busy(self) -> bool:
        """Whether an upload or a scrub that somebody asked for is under way."""
        return bool(self._writing) or self._scrub_mutex.locked()

    @contextlib.contextmanager
    def scrubbing(self) -> Iterator[None]:
        """Holds the lock of the one scrub there may be. Raises BusyError."""
        if not self._scrub_mutex.acquire(blocking=False):
            raise BusyError("Another scrub of the store is under way. Try again later.")
        try:
            yield
        finally:
            self._scrub_mutex.release()

    def _take_in(self, blob: Blob) -> None:
        with self._mutex:
            self._blobs.put(blob)
            for release in self._releases.values():
                heal_release(self.fs, self.layout, release.manifest, release.folder, blob.sha256)

    def _end_writing(self, blob: Blob) -> None:
        with self._mutex:
            self._writing.pop(blob.sha256, None)

    def _missing(self, blob: Blob) -> Missing:
        here = self._blobs.chunks.found(blob)
        meta = read_meta(self.layout.partial_meta(blob.sha256))
        if meta is not None and meta.chunking == blob.chunking:
            here |= {index for span in meta.durable for index in range(span.first, span.first + span.count)}
        lacking = set(range(len(blob.chunks))) - here
        return Missing(blob.sha256, to_ranges(lacking), blob.bytes_of(lacking))

    def _make_room(self, blob: Blob) -> None:
        found = partials(self.layout).get(blob.sha256)
        claimed_bytes = 0 if found is None else found.st_size  # when the upload began
        if blob.size_bytes > self.free_bytes() + claimed_bytes:
            self.collect()
        require_room(blob, self.free_bytes() + claimed_bytes)

    def _needed(self) -> set[str]:
        return {sha256 for release in self._releases.values() for sha256 in _blobs_of(release.manifest)}


def _blobs_of(manifest: Manifest) -> list[str]:
    return sorted({file.sha256 for file in manifest.files})

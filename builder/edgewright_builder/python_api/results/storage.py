"""What became of a board's store: the results of `Board.delete`, `Board.gc` and `Board.scrub`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.sizes import format_bytes
from edgewright_builder.python_api.results.board import BoardRelease
from edgewright_builder.show.sheet import Lines, Sheet, shown


@dataclass(frozen=True)
class DeletedRelease:
    """A release that was deleted, or in a dry run would be."""

    release: str
    name: str
    version: str
    freed_bytes: int | None  # None: nothing was deleted; files that others share free nothing

    @property
    def line(self) -> str:
        """What happened to it."""
        title = f"{self.release[:12]} ({self.name} {self.version})"
        if self.freed_bytes is None:
            return f"would delete {title}"
        return f"deleted {title}: freed {format_bytes(self.freed_bytes)}"


@shown
@dataclass(frozen=True)
class GarbageCollection:
    """What a collection freed, and what it left."""

    freed_bytes: int  # or would be, in a dry run
    blobs: int
    uploads: int
    kept_recent_bytes: int  # needed by no release, but asked about within the hour
    quarantine_bytes: int  # still in quarantine
    deleted_releases: tuple[DeletedRelease, ...] = ()
    dry_run: bool = False

    def _sheet(self) -> Sheet:
        done = "would free" if self.dry_run else "freed"
        freed = f"{done} {format_bytes(self.freed_bytes)}"
        lines = [each.line for each in self.deleted_releases]
        lines.append(f"{freed}: {self.blobs} files, {self.uploads} unfinished uploads")
        if self.kept_recent_bytes:
            kept = format_bytes(self.kept_recent_bytes)
            lines.append(f"kept {kept} that no release needs: a push asked about them within the hour")
        if self.quarantine_bytes:
            lines.append(f"in quarantine: {format_bytes(self.quarantine_bytes)}; --quarantine removes it")
        return Sheet((Lines(lines),))


@shown
@dataclass(frozen=True)
class ScrubResult:
    """What a board found when it compared every stored file with its digest."""

    blobs: int
    bytes: int
    total_bytes: int
    corrupt_blobs: tuple[str, ...]  # digests; they are in quarantine
    damaged_releases: tuple[str, ...]  # releases that need one of them
    done: bool

    @property
    def whole(self) -> bool:
        """Whether every file is what its digest says."""
        return not (self.corrupt_blobs or self.damaged_releases)

    def _sheet(self) -> Sheet:
        read = f"{self.blobs} files, {format_bytes(self.bytes)} read"
        if self.whole:
            return Sheet((Lines([f"{read}; all are what their digests say"]),))
        corrupt, damaged = _names(self.corrupt_blobs), _names(self.damaged_releases)
        return Sheet(
            (Lines([f"{read}; corrupt and in quarantine: {corrupt}; releases to push again: {damaged}"]),)
        )


def unneeded(releases: Sequence[BoardRelease]) -> list[BoardRelease]:
    """Returns all but those in use and the bases these need; adapters first, for a board keeps a base that has one."""
    in_use = [each for each in releases if each.state in ("active", "previous", "candidate")]
    kept = {each.release for each in in_use} | {each.base_release for each in in_use}
    return sorted(
        (each for each in releases if each.release not in kept), key=lambda each: not each.base_release
    )


def _names(digests: Sequence[str]) -> str:
    return ", ".join(digest[:12] for digest in digests) or "none"

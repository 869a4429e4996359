"""Where things lie in the store. One filesystem: renames and hard links must not cross devices.

VERSION  lock  state.json  state.json.prev  scrub.json  scrub.json.prev
blobs/sha256/ab/<64 hex>             0444, the name is the verified digest
partial/<64 hex>.{data,meta}         an upload: preallocated bytes, and which of them are durable
releases/<manifest sha256>/          manifest.json  manifest.sig  tree/<hard links to blobs>
trust/<version>.json  trust/clock   the trust document in force; the latest time seen
telemetry/                           what was measured while nobody listened
quarantine/                          what no longer matches its digest; never silently deleted
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths under the store's root; the drawing above."""

    root: Path

    @property
    def version(self) -> Path:
        """Which layout this is; see `version`."""
        return self.root / "VERSION"

    @property
    def lock(self) -> Path:
        """Held by the agent for life."""
        return self.root / "lock"

    @property
    def state(self) -> Path:
        """What the board is doing."""
        return self.root / "state.json"

    @property
    def state_previous(self) -> Path:
        """The state before."""
        return self.root / "state.json.prev"

    @property
    def scrub(self) -> Path:
        """How far the background scrub has come."""
        return self.root / "scrub.json"

    @property
    def scrub_previous(self) -> Path:
        """The record before."""
        return self.root / "scrub.json.prev"

    @property
    def blobs(self) -> Path:
        """Folders of two hex digits."""
        return self.root / "blobs" / "sha256"

    @property
    def partial(self) -> Path:
        """Uploads that are not complete."""
        return self.root / "partial"

    @property
    def releases(self) -> Path:
        """One folder per staged release."""
        return self.root / "releases"

    @property
    def trust(self) -> Path:
        """Whose releases may run; kept by `edgewright_agent.trust`."""
        return self.root / "trust"

    @property
    def telemetry(self) -> Path:
        """Recorded measurements; kept by `edgewright_agent.telemetry.exporters.recorder`."""
        return self.root / "telemetry"

    @property
    def quarantine(self) -> Path:
        """What was found corrupt."""
        return self.root / "quarantine"

    @property
    def folders(self) -> tuple[Path, ...]:
        """All that must exist."""
        return (self.blobs, self.partial, self.releases, self.quarantine)

    def blob(self, sha256: str) -> Path:
        """Returns the path of a stored blob."""
        return self.blobs / sha256[:2] / sha256

    def partial_data(self, sha256: str) -> Path:
        """Returns the path of an upload's bytes."""
        return self.partial / f"{sha256}.data"

    def partial_meta(self, sha256: str) -> Path:
        """Returns the path of the record of which chunks of an upload are durable."""
        return self.partial / f"{sha256}.meta"

    def release(self, sha256: str) -> Path:
        """Returns the path of a staged release."""
        return self.releases / sha256

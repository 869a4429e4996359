"""Where things lie in the store. One filesystem: renames and hard links must not cross devices.

VERSION  lock  state.json  state.json.prev  scrub.json  scrub.json.prev
blobs/sha256/ab/<64 hex>             0444, the name is the verified digest
partial/<64 hex>.{data,meta}         an upload: preallocated bytes, and which of them are durable
releases/<manifest sha256>/          manifest.json  manifest.sig  tree/<hard links to blobs>
                                     prepared/<version>/  what the board made of it for its engine
trust/<version>.json  trust/clock   the trust document in force; the latest time seen
telemetry/                           what was measured while nobody listened
quarantine/                          what no longer matches its digest; never silently deleted
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The paths under the store's root, as in the drawing above."""

    root: Path

    @property
    def version(self) -> Path:
        """The number of the layout; see `version`."""
        return self.root / "VERSION"

    @property
    def lock(self) -> Path:
        """The lock that the agent holds while it runs."""
        return self.root / "lock"

    @property
    def state(self) -> Path:
        """The state of the board's releases."""
        return self.root / "state.json"

    @property
    def state_previous(self) -> Path:
        """The state before that one."""
        return self.root / "state.json.prev"

    @property
    def scrub(self) -> Path:
        """How far the background scrub has come."""
        return self.root / "scrub.json"

    @property
    def scrub_previous(self) -> Path:
        """The scrub's record before that one."""
        return self.root / "scrub.json.prev"

    @property
    def blobs(self) -> Path:
        """The folders of two hex digits that hold blobs."""
        return self.root / "blobs" / "sha256"

    @property
    def partial(self) -> Path:
        """The uploads that are not complete."""
        return self.root / "partial"

    @property
    def releases(self) -> Path:
        """One folder per staged release."""
        return self.root / "releases"

    @property
    def trust(self) -> Path:
        """The trust document and clock, kept by `edgewright_agent.trust`."""
        return self.root / "trust"

    @property
    def telemetry(self) -> Path:
        """The recorded measurements, kept by `edgewright_agent.telemetry.exporters.recorder`."""
        return self.root / "telemetry"

    @property
    def quarantine(self) -> Path:
        """What was found corrupt, and what does not belong in the store."""
        return self.root / "quarantine"

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that must exist."""
        return (self.blobs, self.partial, self.releases, self.quarantine)

    def blob(self, sha256: str) -> Path:
        """Returns where a blob is stored."""
        return self.blobs / sha256[:2] / sha256

    def partial_data(self, sha256: str) -> Path:
        """Returns where the bytes of an upload are."""
        return self.partial / f"{sha256}.data"

    def partial_meta(self, sha256: str) -> Path:
        """Returns where the record of an upload's durable chunks is."""
        return self.partial / f"{sha256}.meta"

    def prepared(self, sha256: str) -> Path:
        """Returns the folder of what was made of a release for its engine, kept by `engines.preparing`."""
        return self.release(sha256) / "prepared"

    def release(self, sha256: str) -> Path:
        """Returns the folder of a staged release."""
        return self.releases / sha256

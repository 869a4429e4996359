"""What a board must be like after whatever a host asked of it: a few sets and names, and the artifacts it is sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgewright.errors import RefusedError
from edgewright_agent.store import Blob
from tests.support.artifacts import TestArtifact, make_artifact
from tests.support.fault_board import GOLDEN

CHUNK_BYTES = 512
SHARED = b"tokenizer " * 60


def artifact(name: str, counter: int) -> TestArtifact:
    tree = {"engine/model.bin": name.encode() * 1000, "t/tok.json": SHARED, "t/own.json": name.encode()}
    return make_artifact(tree, version=name, release_counter=counter, golden=GOLDEN, chunk_bytes=CHUNK_BYTES)


GOOD = [artifact("a", 1), artifact("b", 2), artifact("c", 3)]
BAD = [artifact("x", 2), artifact("y", 4)]  # their engines do not start
ARTIFACTS = {each.digest: each for each in GOOD + BAD}
CONTENTS = {name: data for each in ARTIFACTS.values() for name, data in each.contents.items()}
BLOBS: dict[str, Blob] = {blob.sha256: blob for each in ARTIFACTS.values() for blob in each.blobs}


@dataclass
class Model:
    """What the board must be like."""

    active: str | None = None
    previous: str | None = None
    denied: list[str] = field(default_factory=list)
    counter_floor: int = 0
    staged: set[str] = field(default_factory=set)
    uploads: dict[str, set[int]] = field(default_factory=dict)  # chunks reported durable, by blob
    blobs: set[str] = field(default_factory=set)  # certainly there

    @property
    def needed(self) -> set[str]:
        return {blob.sha256 for digest in self.staged for blob in ARTIFACTS[digest].blobs}

    @property
    def committed(self) -> tuple[object, ...]:
        return self.active, self.previous, tuple(self.denied), self.counter_floor, frozenset(self.staged)

    def put(self, sha256: str) -> None:
        self.blobs.add(sha256)
        self.uploads.pop(sha256, None)

    def stage(self, digest: str) -> None:
        for blob in ARTIFACTS[digest].blobs:
            self.put(blob.sha256)
        self.staged.add(digest)

    def activate(self, digest: str, *, force: bool, rotten: bool = False) -> None:
        """Raises RefusedError where the board must. `rotten`: the active release can't be started again."""
        if digest not in self.staged:
            raise RefusedError("unknown")
        if digest == self.active:
            return
        counter = ARTIFACTS[digest].manifest.release_counter
        if (digest in self.denied and not force) or counter < self.counter_floor:
            raise RefusedError("denied, or a downgrade")
        self.denied = [each for each in self.denied if each != digest]
        if ARTIFACTS[digest] in BAD:
            self.denied.append(digest)
            self.go_back(rotten=rotten)
            return
        if self.active is not None:
            before = ARTIFACTS[self.active].manifest.release_counter
            self.counter_floor = max(self.counter_floor, min(before, counter))
        last = self.active or self.previous
        self.active, self.previous = digest, None if last == digest else last

    def go_back(self, *, rotten: bool) -> None:
        """To the active release if it is whole, else to the previous one, else to nothing."""
        if self.active is None or (rotten and self.previous is not None):
            self.active, self.previous = self.previous, self.active
        elif rotten:
            self.active, self.previous = None, self.active

    def roll_back(self) -> None:
        if self.previous is None:
            raise RefusedError("no previous release")
        self.active, self.previous = self.previous, self.active

    def delete(self, digest: str, *, forgive: bool = True) -> None:
        if digest not in self.staged or digest in (self.active, self.previous):
            raise RefusedError("unknown, or in use")
        self.staged.discard(digest)
        self.denied = [each for each in self.denied if each != digest or not forgive]
        self.blobs &= self.needed  # the others may go

"""What a board is and which releases it holds: the results of `Board.status` and `Board.releases`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgewright.errors import InputError
from edgewright.sizes import format_bytes
from edgewright.v1 import deployment_pb2
from edgewright_builder.device_client.messages import from_message
from edgewright_builder.show.sheet import Facts, Grid, Sheet, shown

COLUMNS = ("release", "name", "version", "counter", "size", "engine", "state")


@dataclass(frozen=True)
class EngineStatus:
    """An engine as the agent found it on the board."""

    kind: str  # onnxruntime-genai, vllm
    version: str
    available: bool
    detail: str  # why it is not available; else empty


@dataclass(frozen=True)
class BoardRelease:
    """An artifact that is staged on a board."""

    release: str  # SHA-256 of the manifest, in hex
    name: str
    version: str
    release_counter: int
    size_bytes: int
    predicted_peak_bytes: int
    engine: str
    state: str  # staged, candidate, active, previous, denied
    base_release: str  # of an adapter: whose model it adapts; else empty
    prediction_basis: str  # JSON, what the prediction was computed from; may be empty

    @property
    def title(self) -> str:
        """Name, version and the beginning of the digest."""
        return f"{self.name} {self.version} ({self.release[:12]})"

    def row(self) -> tuple[str, ...]:
        """Returns the cells under `COLUMNS`."""
        served_by = f"adapter of {self.base_release[:12]}" if self.base_release else self.engine
        return (
            self.release[:12], self.name, self.version, str(self.release_counter), format_bytes(self.size_bytes),
            served_by, self.state,
        )  # fmt: skip


@shown
@dataclass(frozen=True)
class BoardReleases:
    """Every release on a board, in the board's order. It has a length, an order and items, as a tuple has."""

    releases: tuple[BoardRelease, ...]
    host: str = "the board"

    def __iter__(self) -> Iterator[BoardRelease]:
        return iter(self.releases)

    def __len__(self) -> int:
        return len(self.releases)

    def __getitem__(self, index: int) -> BoardRelease:
        return self.releases[index]

    @property
    def active(self) -> BoardRelease | None:
        """The release that serves; None if none does."""
        return next((each for each in self.releases if each.state == "active"), None)

    def named(self, digest: str) -> BoardRelease:
        """Returns the one release whose digest begins so; the active one for "". Raises InputError for 0 or several."""
        active = self.active
        if not digest and active is not None:
            return active
        matching = [each for each in self.releases if digest and each.release.startswith(digest)]
        if len(matching) != 1:
            what = f"releases whose digest begins with {digest}" if digest else "active releases"
            raise InputError(
                f"{self.host} has {len(matching)} {what}; see `edgewright releases {self.host}`."
            )
        return matching[0]

    def _sheet(self) -> Sheet:
        return Sheet((Grid(COLUMNS, [each.row() for each in self.releases]),))


@shown
@dataclass(frozen=True)
class BoardStatus:
    """What a board is, has, can run and is doing."""

    agent_version: str
    profile_id: str
    hostname: str
    machine: str  # aarch64, x86_64
    board_model: str  # from the device tree; empty where there is none
    cpu_cores: int
    memory_total_bytes: int
    memory_available_bytes: int
    budget_bytes: int  # the most a release may take at its peak
    store_free_bytes: int
    engines: tuple[EngineStatus, ...]
    phase: str  # idle, preparing, activating, probation, rolling_back, safe, staged
    active_release: str  # SHA-256 of the manifest, in hex; empty if none
    previous_release: str
    release_counter_floor: int
    engine_kernels: tuple[str, ...]
    quarantined_files: int
    notes: tuple[str, ...]  # why nothing is served, and the like
    releases: tuple[BoardRelease, ...]

    @property
    def active(self) -> BoardRelease | None:
        """The active release; None if none is."""
        return next((each for each in self.releases if each.release == self.active_release), None)

    def _sheet(self) -> Sheet:
        total, free = format_bytes(self.memory_total_bytes), format_bytes(self.memory_available_bytes)
        rows = [
            ("phase", self.phase.replace("_", " ")),
            ("active", self._named(self.active_release)),
            *(("note", note) for note in self.notes),
            ("previous", self._named(self.previous_release)),
            ("board", f"{self.board_model or 'no device tree'}, {self.machine}, {self.cpu_cores} cores"),
            ("memory", f"{free} free of {total}"),
            ("budget", format_bytes(self.budget_bytes)),
            ("store", f"{format_bytes(self.store_free_bytes)} free{self._quarantine()}"),
            *((f"engine {each.kind}", _availability(each)) for each in self.engines),
            *(("kernel", kernel) for kernel in self.engine_kernels),
            ("agent", self.agent_version),
        ]
        return Sheet((Facts(f"{self.hostname} ({self.profile_id})", rows),))

    def _named(self, release: str) -> str:
        known = next((each.title for each in self.releases if each.release == release), f"({release[:12]})")
        return known if release else "none"

    def _quarantine(self) -> str:
        files = self.quarantined_files
        again = "in quarantine: push again, then gc --quarantine"
        return f"; {files} file(s) found corrupt, {again}" if files else ""


def releases_of(messages: Sequence[deployment_pb2.Release], host: str = "the board") -> BoardReleases:
    """Returns the board's list of releases."""
    return BoardReleases(tuple(from_message(BoardRelease, each) for each in messages), host)


def status_of(
    device: deployment_pb2.GetDeviceResponse, releases: Sequence[deployment_pb2.Release]
) -> BoardStatus:
    """Returns the board's answers about itself as one status."""
    return from_message(BoardStatus, device, releases=releases_of(releases).releases)


def _availability(engine: EngineStatus) -> str:
    return engine.version if engine.available else f"not available: {engine.detail}"

"""The state of a board's releases: all that must survive a power cut, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any


class Phase(Enum):
    """Where the board is; the names are those of the wire contract."""

    IDLE = "idle"
    ACTIVATING = "activating"
    PROBATION = "probation"
    ROLLING_BACK = "rolling_back"
    SAFE = "safe"
    STAGED = "staged"


class ChangeOutcome(Enum):
    """How the last change ended."""

    NONE = "none"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"


@dataclass(frozen=True)
class State:
    """All that must survive a power cut. Releases are named by the SHA-256 of their manifest, in hex."""

    phase: Phase = Phase.IDLE
    active: str | None = None  # serves, or should
    previous: str | None = None  # where a roll-back goes
    candidate: str | None = None  # the release being started
    given_up: tuple[str, ...] = ()  # could not be started in this change; none is tried twice
    staged: str | None = None  # came last and waits to be activated
    attempts: int = 0  # of starting the candidate
    starts: int = 0  # of the active release's engine since it last ran for long
    transitions: int = 0  # since the board was last at rest
    confirm_within_seconds: float = 0.0  # the candidate stays only if confirmed in this time; 0: by itself
    awaiting_confirmation: bool = False  # the candidate passed its probes and that time runs
    denied: tuple[str, ...] = ()  # failed here; oldest first
    counter_floor: int = 0  # the lowest release counter that is accepted; never falls
    outcome: ChangeOutcome = ChangeOutcome.NONE
    host_asked: bool = False  # for the roll-back under way; else the board goes back by itself
    message: str = ""  # what happened, for people

    @property
    def at_rest(self) -> bool:
        """Whether nothing is under way."""
        return self.phase in (Phase.IDLE, Phase.STAGED, Phase.SAFE)

    @property
    def serves(self) -> str | None:
        """Returns the release that should answer requests while the board is at rest."""
        return self.active if self.phase in (Phase.IDLE, Phase.STAGED) else None

    @property
    def in_use(self) -> set[str]:
        """Returns the releases that may not be deleted."""
        return {release for release in (self.active, self.previous, self.candidate) if release is not None}

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {**asdict(self), "phase": self.phase.value, "outcome": self.outcome.value}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> State:
        """Returns the state that `to_json` wrote. Fields that only a newer or older agent knows are left out."""
        known = {field.name: value[field.name] for field in fields(cls) if field.name in value}
        phase, outcome = Phase(value["phase"]), ChangeOutcome(value["outcome"])
        lists = {"denied": tuple(value["denied"]), "given_up": tuple(value.get("given_up", ()))}
        return cls(**{**known, "phase": phase, "outcome": outcome, **lists})

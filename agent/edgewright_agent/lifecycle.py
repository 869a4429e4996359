"""The rules of activation: pure functions from one state to the next. No I/O, no clock.

    IDLE --activate--> ACTIVATING --started--> PROBATION --probes pass--> IDLE (committed)
    ACTIVATING, PROBATION --failed--> ACTIVATING again, or ROLLING_BACK once the attempts are spent
    ROLLING_BACK --started--> IDLE (rolled back);  --failed, attempts spent--> SAFE

Whoever drives this writes each state to disk before acting on it: an attempt is counted before the engine
starts, so a board that dies while starting it does not try for ever.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

from edgewright.v1.common_pb2 import Reason
from edgewright_agent.errors import BusyError, RefusedError

ATTEMPTS_MAX = 3
TRANSITIONS_MAX = 32  # of one change; Mender's loop breaker stops at 28
DENIED_MAX = 64


class Phase(Enum):
    """Where the board is; the names are those of the wire contract."""

    IDLE = "idle"
    ACTIVATING = "activating"
    PROBATION = "probation"
    ROLLING_BACK = "rolling_back"
    SAFE = "safe"


class Outcome(Enum):
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
    attempts: int = 0  # of starting the candidate
    transitions: int = 0  # since the board was last at rest
    denied: tuple[str, ...] = ()  # failed here; oldest first
    counter_floor: int = 0  # the lowest release counter that is accepted; never falls
    outcome: Outcome = Outcome.NONE
    message: str = ""  # what happened, for people

    @property
    def at_rest(self) -> bool:
        """Whether nothing is under way."""
        return self.phase in (Phase.IDLE, Phase.SAFE)

    @property
    def in_use(self) -> set[str]:
        """Releases that may not be deleted."""
        return {release for release in (self.active, self.previous, self.candidate) if release is not None}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "phase": self.phase.value, "outcome": self.outcome.value}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> State:
        """The inverse of `to_json`."""
        phase, outcome = Phase(value["phase"]), Outcome(value["outcome"])
        return cls(**{**value, "phase": phase, "outcome": outcome, "denied": tuple(value["denied"])})


def activate(state: State, release: str, counter: int, *, force: bool = False) -> State:
    """The candidate is `release` with this release counter.

    Raises BusyError, RefusedError (`RELEASE_DENIED`; `DOWNGRADE`).
    """
    _require_rest(state)
    if release in state.denied and not force:
        message = f"Release {release[:12]} failed on this board before. Activate it with force to try again."
        raise RefusedError(message, Reason.REASON_RELEASE_DENIED)
    check_counter(state, counter)
    denied = tuple(other for other in state.denied if other != release)
    message = f"activating {release[:12]}"
    return _change(
        state, Phase.ACTIVATING, message, candidate=release, denied=denied, attempts=0, outcome=Outcome.NONE
    )


def roll_back(state: State) -> State:
    """Back to the previous release. Raises BusyError, RefusedError (`NO_PREVIOUS_RELEASE`)."""
    _require_rest(state)
    if state.previous is None:
        message = "There is no previous release to roll back to. Activate a staged release instead."
        raise RefusedError(message, Reason.REASON_NO_PREVIOUS_RELEASE)
    message = f"rolling back to {state.previous[:12]} as asked"
    return _change(
        state, Phase.ROLLING_BACK, message, candidate=state.previous, attempts=0, outcome=Outcome.NONE
    )


def attempt(state: State) -> State:
    """The candidate's engine is about to be started once more."""
    if state.attempts >= ATTEMPTS_MAX:
        return failed(state, "no attempts are left")
    number = state.attempts + 1
    message = f"starting {_short(state.candidate)}, attempt {number} of {ATTEMPTS_MAX}"
    return _change(state, state.phase, message, attempts=number)


def started(state: State) -> State:
    """The candidate's engine answers."""
    if state.phase is Phase.ACTIVATING:
        return _change(state, Phase.PROBATION, f"{_short(state.candidate)} answers; probing it")
    message = f"rolled back to {_short(state.candidate)}"
    previous = state.previous if state.candidate == state.active else state.active
    return _rest(state, Outcome.ROLLED_BACK, message, active=state.candidate, previous=previous)


def committed(state: State, active_counter: int) -> State:
    """The candidate passed: it is active. `active_counter` is that of the release it replaces, 0 if none.

    The floor rises to the counter of the release that becomes previous, so going back stays legal.
    """
    message = f"{_short(state.candidate)} is active"
    if state.candidate == state.active:
        return _rest(state, Outcome.COMMITTED, message)
    floor = max(state.counter_floor, active_counter)
    return _rest(
        state,
        Outcome.COMMITTED,
        message,
        active=state.candidate,
        previous=state.active or state.previous,
        counter_floor=floor,
    )


def failed(state: State, why: str) -> State:
    """The candidate's engine did not start, died, or failed a required probe."""
    if state.attempts < ATTEMPTS_MAX:
        again = Phase.ROLLING_BACK if state.phase is Phase.ROLLING_BACK else Phase.ACTIVATING
        return _change(state, again, why)
    if state.phase is Phase.ROLLING_BACK:
        return _after_failed_roll_back(state, why)
    denied = (*state.denied, *([state.candidate] if state.candidate else []))[-DENIED_MAX:]
    if state.active is None:
        return _rest(state, Outcome.FAILED, why, denied=denied)
    return _change(state, Phase.ROLLING_BACK, why, candidate=state.active, denied=denied, attempts=0)


def recovered(state: State) -> State:
    """What to do after the agent itself was stopped or killed in `state`."""
    return state if state.at_rest else failed(state, "the agent stopped during the change")


def lost() -> State:
    """The state can't be read any more: which release was active is for an operator to say."""
    message = "the board's state can't be read; activate a release"
    return State(phase=Phase.SAFE, outcome=Outcome.FAILED, message=message)


def without_lost(state: State, staged: set[str]) -> State:
    """The state without releases that are no longer whole; from a lost active one back to the previous."""
    previous = state.previous if state.previous in staged else None
    if state.active is None or state.active in staged:
        return replace(state, previous=previous)
    left = replace(state, active=None, previous=previous, message=f"release {_short(state.active)} is lost")
    return roll_back(left) if left.at_rest and previous is not None else left


def forgotten(state: State, release: str) -> State:
    """The release was deleted: pushed anew, it may be tried again."""
    return replace(state, denied=tuple(other for other in state.denied if other != release))


def check_counter(state: State, counter: int) -> None:
    """Raises RefusedError (`DOWNGRADE`) if the release counter is below the floor."""
    if counter < state.counter_floor:
        message = (
            f"The release counter is {counter}; this board accepts {state.counter_floor} or more. "
            "Build the artifact with a higher release counter."
        )
        raise RefusedError(message, Reason.REASON_DOWNGRADE)


def _after_failed_roll_back(state: State, why: str) -> State:
    if state.active is not None and state.candidate != state.active:
        message = f"{why}; going back to {_short(state.active)}"
        return _change(state, Phase.ROLLING_BACK, message, candidate=state.active, attempts=0)
    return _safe(state, why)


def _change(state: State, phase: Phase, message: str, **changes: Any) -> State:
    if state.transitions >= TRANSITIONS_MAX:
        return _safe(state, f"{message}; stopped after {TRANSITIONS_MAX} transitions")
    return replace(state, phase=phase, message=message, transitions=state.transitions + 1, **changes)


def _rest(state: State, outcome: Outcome, message: str, **changes: Any) -> State:
    rest = {"candidate": None, "attempts": 0, "transitions": 0, "outcome": outcome, "message": message}
    return replace(state, phase=Phase.IDLE, **{**rest, **changes})


def _safe(state: State, why: str) -> State:
    message = f"nothing could be started: {why}"
    previous = state.active or state.previous  # an operator may try it again with RollBack
    safe = _rest(state, Outcome.FAILED, message, active=None, previous=previous)
    return replace(safe, phase=Phase.SAFE)


def _require_rest(state: State) -> None:
    if not state.at_rest:
        phase = state.phase.value.replace("_", " ")
        raise BusyError(f"The board is {phase} ({_short(state.candidate)}). Try again when it is at rest.")


def _short(release: str | None) -> str:
    return "nothing" if release is None else release[:12]

"""The rules of activation, of roll-backs and of what runs after a power cut: pure functions from state to state.

    IDLE --staged--> STAGED --activate--> ACTIVATING (from IDLE and SAFE too)
    ACTIVATING --started--> PROBATION --probes pass, confirmed where asked for--> IDLE (committed)
    ACTIVATING, PROBATION --failed--> ACTIVATING again, or ROLLING_BACK once the attempts are spent
    PROBATION --clients' requests ended the engine--> ACTIVATING again, without spending an attempt
    ACTIVATING --rotted on the disk--> ROLLING_BACK at once, and not denied; --hindered--> as failed, and not denied
    ROLLING_BACK --started--> IDLE (rolled back);  --failed, attempts spent--> the same to the other one, or SAFE
    IDLE, STAGED --the active release keeps dying--> ROLLING_BACK, or SAFE if there is no previous one
    ACTIVATING, PROBATION, ROLLING_BACK --power cut, or the agent stopped (`recovered`)--> as failed

Whoever drives this writes each state to disk before acting on it: an attempt is counted before the engine
starts, so a board that dies while starting it does not try for ever. A release is named by its digest here, the
SHA-256 of its manifest in hex.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgewright.errors import BusyError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment.state import ChangeOutcome, Phase, State

ATTEMPTS_MAX = 3
TRANSITIONS_MAX = 32  # of one change; Mender's loop breaker stops at 28
STARTS_MAX = 10  # of the active release's engine in a row, none of which ran for long
DENIED_MAX = 64


def staged(state: State, digest: str) -> State:
    """Returns the state once the release lies on the disk, whole. Changes nothing while the board is busy or safe."""
    if state.phase not in (Phase.IDLE, Phase.STAGED) or digest == state.active:
        return state
    return replace(state, phase=Phase.STAGED, staged=digest)


def activate(
    state: State, digest: str, counter: int, *, force: bool = False, confirm_within_seconds: float = 0.0
) -> State:
    """Returns the state in which the release `digest`, with this release counter, is the candidate.

    Raises BusyError, RefusedError (`RELEASE_DENIED`; `DOWNGRADE`).
    """
    _require_rest(state)
    if digest in state.denied and not force:
        message = f"Release {digest[:12]} failed on this board before. Activate it with force to try again."
        raise RefusedError(message, Reason.REASON_RELEASE_DENIED)
    check_counter(state, counter)
    denied = tuple(other for other in state.denied if other != digest)
    message = f"activating {digest[:12]}"
    return _change(
        state,
        Phase.ACTIVATING,
        message,
        candidate=digest,
        denied=denied,
        staged=None,
        attempts=0,
        outcome=ChangeOutcome.NONE,
        confirm_within_seconds=confirm_within_seconds,
    )


def roll_back(state: State) -> State:
    """Goes back to the previous release, as the host asked. Raises BusyError, RefusedError (`NO_PREVIOUS_RELEASE`)."""
    _require_rest(state)
    if state.previous is None:
        message = "There is no previous release to roll back to. Activate a staged release instead."
        raise RefusedError(message, Reason.REASON_NO_PREVIOUS_RELEASE)
    message = f"rolling back to {state.previous[:12]} as asked"
    return replace(_go_back(state, state.previous, message), host_asked=True)


def go_back(state: State, digest: str, why: str) -> State:
    """Returns the state in which the board goes back to this release by itself, from rest."""
    return _go_back(state, digest, f"{why}; going back to {_short(digest)}")


def starting(state: State) -> State:
    """Returns the state before the active release's engine is started at rest.

    The start is counted, as attempts are: an engine that takes the board down with it must not be started at each
    boot for ever. Once too many starts have ended early, the board goes back to the previous release.
    """
    if state.serves is None:
        return state  # a change has begun meanwhile
    if state.starts < STARTS_MAX:
        return replace(state, starts=state.starts + 1)
    why = f"{_short(state.active)} ended early {STARTS_MAX} times in a row"
    back = _previous(state)
    if back is None:
        return _safe(state, why)
    return _go_back(state, back, f"{why}; rolling back to {_short(back)}")


def start_excused(state: State) -> State:
    """Returns the state after a request ended the active release's engine, or the board had no memory or room for
    one: that start does not count.
    """
    return replace(state, starts=max(0, state.starts - 1))


def steady(state: State) -> State:
    """Returns the state once the active release's engine has run for long."""
    return replace(state, starts=0)


def attempt(state: State) -> State:
    """Returns the state before the candidate's engine is started once more."""
    if state.attempts >= ATTEMPTS_MAX:
        return failed(state, "no attempts are left")
    number = state.attempts + 1
    message = f"starting {_short(state.candidate)}, attempt {number} of {ATTEMPTS_MAX}"
    return _change(state, state.phase, message, attempts=number)


def started(state: State) -> State:
    """Returns the state once the candidate's engine answers."""
    if state.phase is Phase.ACTIVATING:
        return _change(state, Phase.PROBATION, f"{_short(state.candidate)} answers; probing it")
    assert state.phase is Phase.ROLLING_BACK, state.phase
    message = f"rolled back to {_short(state.candidate)}"
    previous = state.previous if state.candidate == state.active else state.active
    return _rest(state, ChangeOutcome.ROLLED_BACK, message, active=state.candidate, previous=previous)


def awaiting(state: State) -> State:
    """Returns the state once the candidate passed its probes and the host has to confirm it."""
    seconds = f"{state.confirm_within_seconds:g} s"
    message = f"{_short(state.candidate)} passed its probes; waiting {seconds} to be confirmed"
    return _change(state, Phase.PROBATION, message, awaiting_confirmation=True)


def committed(state: State, counter: int, active_counter: int) -> State:
    """Returns the state in which the candidate is active. `active_counter`: of the release it replaces, 0 if none.

    The floor rises to the lower of both counters: what is active and what is gone back to stay legal.
    """
    message = f"{_short(state.candidate)} is active"
    if state.candidate == state.active:
        return _rest(state, ChangeOutcome.COMMITTED, message)
    floor = max(state.counter_floor, min(counter, active_counter))
    before = state.active or state.previous
    previous = None if before == state.candidate else before  # on a safe board it may be that one
    changes = {"active": state.candidate, "previous": previous, "counter_floor": floor}
    return _rest(state, ChangeOutcome.COMMITTED, message, **changes)


def failed(state: State, why: str) -> State:
    """Returns the state after the candidate's engine did not start, died, or failed a required probe."""
    if state.attempts < ATTEMPTS_MAX:
        again = Phase.ROLLING_BACK if state.phase is Phase.ROLLING_BACK else Phase.ACTIVATING
        return _change(state, again, why, awaiting_confirmation=False)
    if state.phase is not Phase.ROLLING_BACK:
        state = replace(state, denied=(*state.denied, *_candidate(state))[-DENIED_MAX:])
    return _without_candidate(state, why)


def excused(state: State, why: str) -> State:
    """Returns the state after clients' requests ended the trial: the candidate is tried again, and no attempt is
    spent.
    """
    return _change(
        state, Phase.ACTIVATING, why, attempts=max(0, state.attempts - 1), awaiting_confirmation=False
    )


def hindered(state: State, why: str) -> State:
    """Returns the state after the board was out of something. The candidate was not tried, so it is not denied."""
    return replace(failed(state, why), denied=state.denied)


def rotted(state: State, why: str) -> State:
    """Returns the state after the candidate's files were found corrupt. More attempts would read the same.

    It is not denied: the disk is what failed. The release may be tried as soon as it was pushed again.
    """
    return _without_candidate(state, why)


def unconfirmed(state: State) -> State:
    """Returns the state after nobody confirmed the candidate in time. It is not denied: the link may be what failed."""
    why = f"{_short(state.candidate)} was not confirmed within {state.confirm_within_seconds:g} s"
    return _without_candidate(state, why)


def recovered(state: State) -> State:
    """Returns the state to go on from after the agent was stopped or killed in `state`."""
    return state if state.at_rest else failed(state, "the agent stopped during the change")


def lost() -> State:
    """Returns the state of a board whose state file can't be read: an operator has to say which release is active."""
    message = "the board's state can't be read; activate a release"
    return State(phase=Phase.SAFE, outcome=ChangeOutcome.FAILED, message=message)


def without_lost(state: State, staged: set[str]) -> State:
    """Returns the state without releases that are no longer whole. From a lost active one it goes back to the
    previous.

    A lost candidate is not denied: it may be tried as soon as it was pushed again.
    """
    state = state if state.staged in staged else _without_staged(state)
    state = replace(state, previous=state.previous if state.previous in staged else None)
    lost = state.active is not None and state.active not in staged
    if lost:
        state = replace(state, active=None, message=f"release {_short(state.active)} is lost")
    if not state.at_rest and state.candidate not in staged:
        state = rotted(state, f"release {_short(state.candidate)} is lost")
    back = _previous(state)
    return go_back(state, back, state.message) if lost and state.at_rest and back is not None else state


def way_back(state: State) -> str | None:
    """Returns what the board serves if the candidate does not: the active release, else the previous one.

    No release is gone back to twice in one change.
    """
    if state.active is not None and state.active not in state.given_up:
        return state.active
    return _previous(state)


def forgotten(state: State, digest: str) -> State:
    """Returns the state after the release was deleted. Pushed again, it may be tried again."""
    state = _without_staged(state) if digest == state.staged else state
    return replace(state, denied=tuple(other for other in state.denied if other != digest))


def check_counter(state: State, counter: int) -> None:
    """Raises RefusedError (`DOWNGRADE`) if the release counter is below the floor."""
    if counter < state.counter_floor:
        message = (
            f"The release counter is {counter}; this board accepts {state.counter_floor} or more. "
            "Build the artifact with a higher release counter."
        )
        raise RefusedError(message, Reason.REASON_DOWNGRADE)


def _go_back(state: State, digest: str, message: str) -> State:
    changes = {"candidate": digest, "attempts": 0, "staged": None, "outcome": ChangeOutcome.NONE}
    return _change(
        state, Phase.ROLLING_BACK, message, confirm_within_seconds=0.0, host_asked=False, **changes
    )


def _without_candidate(state: State, why: str) -> State:
    rolling_back = state.phase is Phase.ROLLING_BACK
    state = replace(state, given_up=(*state.given_up, *_candidate(state)))
    back = way_back(state)
    if back is None:
        return _safe(state, why) if rolling_back else _rest(state, ChangeOutcome.FAILED, why)
    message = f"{why}; going back to {_short(back)}" if rolling_back else why
    return _change(
        state, Phase.ROLLING_BACK, message, candidate=back, attempts=0, awaiting_confirmation=False
    )


def _previous(state: State) -> str | None:
    """Returns the previous release, if the board may go back to it by itself.

    It may not if the release failed on trial here since. Going back probes nothing, so an operator has to ask for it.
    """
    return None if state.previous in (*state.given_up, *state.denied) else state.previous


def _candidate(state: State) -> tuple[str, ...]:
    return () if state.candidate is None else (state.candidate,)


def _without_staged(state: State) -> State:
    return replace(state, staged=None, phase=Phase.IDLE if state.phase is Phase.STAGED else state.phase)


def _change(state: State, phase: Phase, message: str, **changes: Any) -> State:
    if state.transitions >= TRANSITIONS_MAX:
        return _safe(state, f"{message}; stopped after {TRANSITIONS_MAX} transitions")
    return replace(state, phase=phase, message=message, transitions=state.transitions + 1, **changes)


def _rest(state: State, outcome: ChangeOutcome, message: str, **changes: Any) -> State:
    counters = {"attempts": 0, "starts": 0, "transitions": 0}
    trial = {"candidate": None, "given_up": (), "confirm_within_seconds": 0.0, "awaiting_confirmation": False}
    trial["host_asked"] = False
    rest = {**counters, **trial, "outcome": outcome, "message": message}
    return replace(state, phase=Phase.IDLE, **{**rest, **changes})


def _safe(state: State, why: str) -> State:
    message = f"nothing could be started: {why}"
    previous = state.active or state.previous  # an operator may try it again with RollBack
    safe = _rest(state, ChangeOutcome.FAILED, message, active=None, previous=previous)
    return replace(safe, phase=Phase.SAFE)


def _require_rest(state: State) -> None:
    if not state.at_rest:
        phase = state.phase.value.replace("_", " ")
        raise BusyError(f"The board is {phase} ({_short(state.candidate)}). Try again when it is at rest.")


def _short(digest: str | None) -> str:
    return "nothing" if digest is None else digest[:12]

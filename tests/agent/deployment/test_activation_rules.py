"""The rules of activation, by example and by every order of events that hypothesis finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import BusyError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment import activation_rules
from edgewright_agent.deployment.activation_rules import ATTEMPTS_MAX
from edgewright_agent.deployment.revocation import without_stopped
from edgewright_agent.deployment.state import ChangeOutcome, Phase, State

A, B, C = "a" * 64, "b" * 64, "c" * 64
COUNTERS = {A: 1, B: 2, C: 3}
Rule = Callable[[State, str], State]


def activated(state: State, release: str) -> State:
    """The release activated without a hitch."""
    state = activation_rules.attempt(activation_rules.activate(state, release, COUNTERS[release]))
    return committed(activation_rules.started(state))


def committed(state: State) -> State:
    """With the counters of the releases it is about."""
    counters = [COUNTERS.get(release or "", 0) for release in (state.candidate, state.active)]
    return activation_rules.committed(state, *counters)


def failed_for_good(state: State) -> State:
    """Every attempt that is left fails."""
    phase, candidate = state.phase, state.candidate
    while state.phase is phase and state.candidate == candidate:
        state = activation_rules.failed(activation_rules.attempt(state), "it died")
    return state


def test_a_release_that_passes_becomes_active_and_the_old_one_previous() -> None:
    state = activated(activated(State(), A), B)
    assert (state.phase, state.active, state.previous) == (Phase.IDLE, B, A)
    assert state.outcome is ChangeOutcome.COMMITTED
    assert state.counter_floor == COUNTERS[A]


def test_each_attempt_is_counted_and_the_last_failure_rolls_back() -> None:
    state = activation_rules.activate(activated(State(), A), B, COUNTERS[B])
    for number in range(1, ATTEMPTS_MAX + 1):
        assert state.phase is Phase.ACTIVATING
        state = activation_rules.attempt(state)
        assert state.attempts == number
        state = activation_rules.failed(state, "it died")
    assert (state.phase, state.candidate) == (Phase.ROLLING_BACK, A)
    state = activation_rules.started(activation_rules.attempt(state))
    assert (state.phase, state.active, state.previous) == (Phase.IDLE, A, None)
    assert state.outcome is ChangeOutcome.ROLLED_BACK


def test_a_failed_release_is_denied_until_it_is_forced() -> None:
    state = failed_for_good(activation_rules.activate(State(), A, COUNTERS[A]))
    assert (state.phase, state.outcome, state.active) == (Phase.IDLE, ChangeOutcome.FAILED, None)
    with pytest.raises(RefusedError) as error:
        activation_rules.activate(state, A, COUNTERS[A])
    assert error.value.reason == Reason.REASON_RELEASE_DENIED
    assert activation_rules.activate(state, A, COUNTERS[A], force=True).candidate == A


def test_a_release_that_rotted_on_the_disk_ends_its_change_at_once_and_is_not_denied() -> None:
    state = activation_rules.attempt(activation_rules.activate(activated(State(), A), B, COUNTERS[B]))
    state = activation_rules.rotted(state, "a blob is corrupt")
    assert (state.phase, state.candidate, state.message) == (Phase.ROLLING_BACK, A, "a blob is corrupt")
    state = activation_rules.started(activation_rules.attempt(state))
    assert (state.active, state.outcome, state.denied) == (A, ChangeOutcome.ROLLED_BACK, ())
    assert activation_rules.activate(state, B, COUNTERS[B]).candidate == B


def test_a_first_release_that_rotted_fails_with_the_reason_and_is_not_denied() -> None:
    state = activation_rules.rotted(
        activation_rules.attempt(activation_rules.activate(State(), A, COUNTERS[A])), "corrupt"
    )
    assert (state.phase, state.outcome, state.message) == (Phase.IDLE, ChangeOutcome.FAILED, "corrupt")
    assert state.denied == ()


def test_a_roll_back_to_a_rotted_release_returns_to_the_active_one_at_once() -> None:
    state = activation_rules.attempt(activation_rules.roll_back(activated(activated(State(), A), B)))
    state = activation_rules.rotted(state, "corrupt")
    assert (state.phase, state.candidate, state.denied) == (Phase.ROLLING_BACK, B, ())
    state = activation_rules.rotted(activation_rules.attempt(state), "corrupt too")
    assert (state.phase, state.active, state.previous) == (Phase.SAFE, None, B)


def test_a_roll_back_that_fails_too_leaves_the_board_safe_and_repairable() -> None:
    state = failed_for_good(activation_rules.activate(activated(State(), A), B, COUNTERS[B]))
    state = failed_for_good(state)
    assert (state.phase, state.active, state.previous) == (Phase.SAFE, None, A)
    assert activation_rules.roll_back(state).candidate == A
    assert activation_rules.activate(state, C, COUNTERS[C]).candidate == C


def test_where_the_active_release_does_not_start_again_the_previous_one_serves() -> None:
    state = activation_rules.activate(activated(activated(State(), A), B), C, COUNTERS[C])
    state = failed_for_good(failed_for_good(state))
    assert (state.phase, state.candidate, state.denied) == (Phase.ROLLING_BACK, A, (C,))
    back = activation_rules.started(activation_rules.attempt(state))
    assert (back.phase, back.active, back.previous, back.given_up) == (Phase.IDLE, A, B, ())
    assert failed_for_good(state).phase is Phase.SAFE


@pytest.mark.parametrize("end", [activation_rules.failed, activation_rules.rotted, activation_rules.hindered])
def test_where_the_active_release_was_lost_during_the_change_the_previous_one_serves(end: Rule) -> None:
    state = activation_rules.activate(activated(activated(State(), A), B), C, COUNTERS[C])
    state = activation_rules.recovered(activation_rules.without_lost(state, {A, C}))
    while state.candidate == C:
        state = end(activation_rules.attempt(state), "it died")
    back = activation_rules.started(activation_rules.attempt(state))
    assert (back.phase, back.active, back.previous) == (Phase.IDLE, A, None)


def test_a_board_goes_back_by_itself_to_none_that_failed_on_trial_and_an_operator_may() -> None:
    """Going back probes nothing: the deny list is all that keeps wrong answers from being served."""
    denied = failed_for_good(activation_rules.activate(activated(activated(State(), A), B), A, COUNTERS[A]))
    denied = activation_rules.started(activation_rules.attempt(denied))
    assert (denied.active, denied.previous, denied.denied) == (B, A, (A,))
    over = failed_for_good(failed_for_good(activation_rules.activate(denied, C, COUNTERS[C])))
    lost = activation_rules.without_lost(denied, {A, C})
    worn = activation_rules.starting(replace(denied, starts=activation_rules.STARTS_MAX))
    assert [state.phase for state in (over, lost, worn)] == [Phase.SAFE, Phase.IDLE, Phase.SAFE]
    assert activation_rules.roll_back(lost).candidate == A


def test_the_previous_release_activated_on_a_safe_board_is_not_its_own_previous_one() -> None:
    state = failed_for_good(failed_for_good(activation_rules.activate(activated(State(), A), B, COUNTERS[B])))
    assert (state.phase, state.previous) == (Phase.SAFE, A)
    again = activated(state, A)
    assert (again.active, again.previous) == (A, None)


def test_rolling_back_swaps_active_and_previous() -> None:
    state = activation_rules.roll_back(activated(activated(State(), A), B))
    state = activation_rules.started(activation_rules.attempt(state))
    assert (state.active, state.previous, state.outcome) == (A, B, ChangeOutcome.ROLLED_BACK)
    with pytest.raises(RefusedError) as error:
        activation_rules.roll_back(State())
    assert error.value.reason == Reason.REASON_NO_PREVIOUS_RELEASE


def test_a_roll_back_that_a_host_asked_for_is_told_from_one_of_the_board_by_itself() -> None:
    both = activated(activated(State(), A), B)
    asked = activation_rules.roll_back(both)
    assert asked.host_asked
    assert not activation_rules.started(
        activation_rules.attempt(asked)
    ).host_asked  # at rest nobody asks for anything
    failed = failed_for_good(activation_rules.activate(both, C, COUNTERS[C]))
    lost = activation_rules.without_lost(both, {A})
    assert [(state.phase, state.host_asked) for state in (failed, lost)] == [(Phase.ROLLING_BACK, False)] * 2
    assert "lost" in lost.message


def test_the_state_of_an_older_agent_lacks_what_came_later_and_is_read() -> None:
    saved = activation_rules.roll_back(activated(activated(State(), A), B)).to_json()
    del saved["host_asked"]
    assert State.from_json(saved).phase is Phase.ROLLING_BACK


def test_a_roll_back_as_asked_that_fails_returns_to_the_active_release() -> None:
    state = failed_for_good(activation_rules.roll_back(activated(activated(State(), A), B)))
    assert (state.phase, state.candidate) == (Phase.ROLLING_BACK, B)
    state = activation_rules.started(activation_rules.attempt(state))
    assert (state.active, state.previous) == (B, A)


def test_a_lower_counter_that_is_accepted_stays_legal_once_it_is_active() -> None:
    state = activated(activated(activated(State(), A), C), B)
    assert (state.active, state.previous, state.counter_floor) == (B, C, COUNTERS[B])


def test_a_counter_below_the_floor_is_a_downgrade() -> None:
    state = activated(activated(activated(State(), A), B), C)
    assert state.counter_floor == COUNTERS[B]
    with pytest.raises(RefusedError) as error:
        activation_rules.activate(state, A, COUNTERS[A])
    assert error.value.reason == Reason.REASON_DOWNGRADE
    assert activation_rules.activate(state, B, COUNTERS[B]).candidate == B


def test_one_change_at_a_time() -> None:
    state = activation_rules.activate(State(), A, COUNTERS[A])
    with pytest.raises(BusyError):
        activation_rules.activate(state, B, COUNTERS[B])
    with pytest.raises(BusyError):
        activation_rules.roll_back(replace(state, previous=B))


@pytest.mark.parametrize("phase", [Phase.ACTIVATING, Phase.PROBATION])
def test_a_board_that_dies_on_trial_tries_again_but_not_for_ever(phase: Phase) -> None:
    state = activation_rules.activate(activated(State(), A), B, COUNTERS[B])
    for _ in range(ATTEMPTS_MAX):
        state = replace(activation_rules.attempt(state), phase=phase)
        state = activation_rules.recovered(state)
    assert (state.phase, state.candidate) == (Phase.ROLLING_BACK, A)
    assert B in state.denied


def test_a_lost_active_release_gives_way_to_the_previous_one() -> None:
    state = activated(activated(State(), A), B)
    assert activation_rules.without_lost(state, {A, B}) == state
    back = activation_rules.without_lost(state, {A})
    assert (back.phase, back.candidate, back.active) == (Phase.ROLLING_BACK, A, None)
    gone = activation_rules.without_lost(state, set())
    assert (gone.phase, gone.active, gone.previous) == (Phase.IDLE, None, None)


def test_a_candidate_lost_during_its_change_is_not_denied() -> None:
    state = activation_rules.attempt(activation_rules.activate(activated(State(), A), B, COUNTERS[B]))
    left = activation_rules.without_lost(state, {A})
    assert (left.phase, left.candidate, left.denied) == (Phase.ROLLING_BACK, A, ())
    back = activation_rules.started(activation_rules.attempt(left))
    assert activation_rules.activate(back, B, COUNTERS[B]).candidate == B


def test_a_board_that_lost_its_active_release_and_its_candidate_goes_back_to_the_previous_one() -> None:
    state = activation_rules.activate(activated(activated(State(), A), B), C, COUNTERS[C])
    left = activation_rules.without_lost(state, {A})
    assert (left.phase, left.candidate, left.active, left.denied) == (Phase.ROLLING_BACK, A, None, ())


def test_a_shortage_of_the_board_spends_attempts_and_denies_nothing() -> None:
    state = activation_rules.activate(activated(State(), A), B, COUNTERS[B])
    for _ in range(activation_rules.ATTEMPTS_MAX):
        assert state.candidate == B
        state = activation_rules.hindered(activation_rules.attempt(state), "no file handles are left")
    assert (state.phase, state.candidate, state.denied) == (Phase.ROLLING_BACK, A, ())


def test_the_state_survives_json() -> None:
    state = failed_for_good(activation_rules.activate(activated(State(), A), B, COUNTERS[B]))
    assert State.from_json(state.to_json()) == state


EVENTS = (
    "activate a",
    "activate b",
    "activate c",
    "roll back",
    "attempt",
    "start",
    "commit",
    "fail",
    "rot",
    "hinder",
    "crash",
)


def step(state: State, event: str) -> State:
    """What the runner does on an event that can happen in this state; others change nothing."""
    trying = state.phase in (Phase.ACTIVATING, Phase.ROLLING_BACK)
    if event.startswith("activate"):
        release = {"a": A, "b": B, "c": C}[event[-1]]
        return activation_rules.activate(state, release, COUNTERS[release], force=True)
    if event == "roll back":
        return activation_rules.roll_back(state)
    if event == "crash":
        return activation_rules.recovered(state)
    if event == "attempt" and trying:
        return activation_rules.attempt(state)
    if event == "start" and trying and state.attempts:
        return activation_rules.started(state)
    if event == "commit" and state.phase is Phase.PROBATION:
        return committed(state)
    if event == "fail" and not state.at_rest and state.attempts:
        return activation_rules.failed(state, "it died")
    if event == "rot" and trying and state.attempts:
        return activation_rules.rotted(state, "a blob is corrupt")
    if event == "hinder" and trying and state.attempts:
        return activation_rules.hindered(state, "no file handles are left")
    return state


@given(st.lists(st.sampled_from(EVENTS), max_size=60))
def test_whatever_happens_the_rules_hold(events: list[str]) -> None:
    state = State()
    for event in events:
        before = state
        try:
            state = step(state, event)
        except RefusedError:
            continue
        assert state.counter_floor >= before.counter_floor
        assert state.attempts <= ATTEMPTS_MAX
        assert state.transitions <= activation_rules.TRANSITIONS_MAX
        assert (state.candidate is None) == state.at_rest
        assert state.active is None or state.active != state.previous
        for release in (state.active, state.previous):  # always legal to go back to
            assert release is None or COUNTERS[release] >= state.counter_floor


@given(st.lists(st.sampled_from(EVENTS), max_size=30))
def test_from_any_state_failures_alone_bring_the_board_to_rest(events: list[str]) -> None:
    state = State()
    for event in events:
        try:
            state = step(state, event)
        except RefusedError:
            continue
    for _ in range(4 * activation_rules.TRANSITIONS_MAX):
        if state.at_rest:
            break
        state = activation_rules.failed(activation_rules.attempt(state), "it died")
    assert state.at_rest


RELEASES = st.sets(st.sampled_from((A, B, C)))
ENDS = st.sampled_from((activation_rules.failed, activation_rules.rotted, activation_rules.hindered))
TRYING = st.builds(
    State,
    phase=st.sampled_from((Phase.ACTIVATING, Phase.PROBATION, Phase.ROLLING_BACK)),
    active=st.sampled_from((None, A)),
    previous=st.sampled_from((None, B)),
    candidate=st.sampled_from((A, B, C)),
    attempts=st.integers(0, ATTEMPTS_MAX),
    denied=st.sampled_from(((), (A,), (B,))),
)


@given(TRYING, RELEASES, RELEASES, RELEASES, st.data())
def test_if_the_active_or_the_previous_release_is_whole_and_permitted_the_board_serves_in_the_end(
    state: State, good: set[str], there: set[str], stopped: set[str], data: st.DataObject
) -> None:
    """Whatever is under way, lost and revoked when the agent starts, and however the others fail afterwards."""
    permitted = {state.active, state.previous} - (set(state.denied) - {state.active}) - stopped
    hopes = permitted & good & there - {state.candidate}  # which may have spent its attempts
    state = without_stopped(
        activation_rules.recovered(activation_rules.without_lost(state, there)), there, stopped
    )
    while not state.at_rest or state.serves not in {None, *good}:
        if state.at_rest:  # its engine keeps dying
            state = activation_rules.starting(replace(state, starts=activation_rules.STARTS_MAX))
            continue
        state = activation_rules.attempt(state)
        if state.candidate in good:
            state = activation_rules.started(state)
            state = activation_rules.committed(state, 0, 0) if state.phase is Phase.PROBATION else state
        elif not state.at_rest:
            state = data.draw(ENDS)(state, "it died")
    assert state.serves not in stopped
    assert state.serves is not None or not hopes

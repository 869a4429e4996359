"""Counts for exporters how a board went from phase to phase since the agent started."""

from __future__ import annotations

from collections import Counter

ROLLING_BACK = "rolling_back"
# Why, by the phase a roll-back began in; at rest it is the active release that kept dying, unless the host asked.
REASONS = {"activating": "did_not_start", "probation": "failed_probation"}


class Changes:
    """Gets each phase in turn. Another thread reads the counts."""

    def __init__(self) -> None:
        self._phase: str | None = None
        self._transitions: Counter[tuple[str, str]] = Counter()
        self._rollbacks: Counter[str] = Counter()

    def now(self, phase: str, *, host_asked: bool) -> None:
        """Notes that the board is in this phase; `host_asked`: a host asked for the roll-back."""
        before, self._phase = self._phase, phase
        if before is None or before == phase:
            return
        self._transitions[before, phase] += 1
        if phase == ROLLING_BACK:
            self._rollbacks["asked" if host_asked else REASONS.get(before, "kept_dying")] += 1

    @property
    def transitions(self) -> dict[tuple[str, str], int]:
        """Returns the counts by phase before and after."""
        return self._transitions.copy()

    @property
    def rollbacks(self) -> dict[str, int]:
        """Returns the counts by reason."""
        return self._rollbacks.copy()

"""Stop strings in a stream: text is held back while it may still become one."""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Passes text on until one of the stop strings appears in it; the stop string is not passed on."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that is now certain, and whether a stop string was found."""
        self._held += text
        ends = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:  # the first to be complete, so that the cut does not depend on how the text was split
            return self._held[: min(ends)[1]], True
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        certain = self._held[: len(self._held) - keep]
        self._held = self._held[len(certain) :]
        return certain, False

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _overlap(self, stop: str) -> int:
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)

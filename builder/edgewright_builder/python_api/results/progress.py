"""How far a long call is: what every `on_progress` hears."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edgewright.sizes import format_bytes

PROGRESS_SECONDS = 1.0  # between two words on the same stage, so that `on_progress=print` stays readable


@dataclass(frozen=True)
class Progress:
    """One word on how far a call is. It prints as a line; `done` and `total` are None where it is a note."""

    stage: str
    text: str = ""
    done: int | None = None
    total: int | None = None
    in_bytes: bool = False  # what `done` and `total` count

    def __str__(self) -> str:
        if self.done is None or self.total is None:
            return f"{self.stage}: {self.text}" if self.text else self.stage
        if self.in_bytes:
            counts = f"{format_bytes(self.done)} of {format_bytes(self.total)}"
        else:
            counts = f"{self.done}/{self.total}"
        return f"{self.stage}: {counts}{f', {self.text}' if self.text else ''}"


OnProgress = Callable[[Progress], None]


class ProgressEmitter:
    """Tells a listener of one stage: every note, of steps the last and otherwise one a second."""

    def __init__(self, stage: str, listener: OnProgress | None) -> None:
        self.stage = stage
        self._listener = listener
        self._told_at = 0.0

    def note(self, text: str) -> None:
        """Tells a sentence."""
        if self._listener is not None:
            self._listener(Progress(self.stage, text))

    def step(self, done: int, total: int, text: str = "", *, in_bytes: bool = False) -> None:
        """Reports how much is done, unless it did so a moment ago."""
        now = time.monotonic()
        if self._listener is None or (done < total and now - self._told_at < PROGRESS_SECONDS):
            return
        self._told_at = now
        self._listener(Progress(self.stage, text, done, total, in_bytes))

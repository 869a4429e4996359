"""A build's progress for a listener: what its reporter would print becomes words of `Progress`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console

from edgewright_builder.python_api.results.progress import OnProgress, Progress, ProgressEmitter
from edgewright_builder.run.progress import Reporter


class _Lines(io.StringIO):
    """A file that gives each whole line to the listener."""

    def __init__(self, listener: OnProgress | None) -> None:
        super().__init__()
        self._listener = listener
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if self._listener is not None and line.strip():
                self._listener(Progress("build", line.strip()))
        return len(text)


@dataclass
class ListeningReporter(Reporter):
    """Gives steps to a listener; everything else goes through the console, line by line."""

    listener: OnProgress | None = None
    _emitter: ProgressEmitter = field(default_factory=lambda: ProgressEmitter("build", None))

    def step(self, done: int, total: int, text: str = "") -> None:
        """Tells the listener, at most once a second."""
        if self._emitter.stage != self.stage:
            self._emitter = ProgressEmitter(self.stage, self.listener)
        self._emitter.step(done, total, text)


@contextmanager
def listening_reporter(listener: OnProgress | None) -> Iterator[Reporter]:
    """Yields a reporter for the listener; for None, one that reports to no one."""
    console = Console(file=_Lines(listener), highlight=False, color_system=None, width=10_000)
    yield ListeningReporter(console, listener=listener)

"""Progress of long work: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

OnProgress = Callable[[int, int, str], None]  # done, total, what a reader wants beside it

LINE_INTERVAL_SECONDS = 10.0  # between plain lines, so that a log stays readable


@dataclass
class Reporter:
    """Shows how far a stage is. `console` decides between a bar and lines."""

    console: Console
    stage: str = ""
    _bar: Progress | None = None
    _task: TaskID | None = None
    _last_line: float = field(default=0.0)

    def note(self, text: str) -> None:
        """Prints one line that stays."""
        self.console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)

    def step(self, done: int, total: int, text: str = "") -> None:
        """Shows `done` of `total`, and beside it `text` (tokens/s, loss)."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, text=text)
            return
        now = time.monotonic()
        if done >= total or now - self._last_line >= LINE_INTERVAL_SECONDS:
            self._last_line = now
            self.console.print(
                f"  {self.stage} {done}/{total} {text}".rstrip(),
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    @contextmanager
    def stage_progress(self, stage: str) -> Iterator[None]:
        """Shows the progress of `stage` until the block ends."""
        self.stage, self._last_line = stage, time.monotonic()
        if not self.console.is_terminal:
            yield
            return
        columns = (
            TextColumn("  {task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[text]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            self._bar, self._task = bar, bar.add_task(stage, total=None, text="")
            try:
                yield
            finally:
                self._bar = self._task = None

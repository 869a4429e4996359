"""Progress of a command: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from edgewright_builder.python_api.results.progress import Progress

LINE_SECONDS = 10.0  # between plain lines of a stage, so that a log stays readable


class ProgressView:
    """Hears what the SDK tells its `on_progress`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Bars | None = None
        self._stage = ""
        self._told_at = 0.0
        self._tenths = 0

    def __call__(self, progress: Progress) -> None:
        """Shows one word."""
        if progress.done is None or progress.total is None:
            self._console.print(f"  {progress.text}", markup=False, soft_wrap=True)
            return
        begins = progress.stage != self._stage
        if begins:
            self._stage, self._told_at, self._tenths = progress.stage, time.monotonic(), 0
        if self._console.is_terminal:
            self._draw(progress, progress.done, progress.total, begins=begins)
        elif progress.in_bytes:
            self._tell_bytes(progress, progress.done, progress.total)
        else:
            self._tell(progress, progress.done, progress.total)

    @contextmanager
    def shown(self) -> Iterator[ProgressView]:
        """Takes the bar away in the end."""
        try:
            yield self
        finally:
            self._end()

    def _draw(self, progress: Progress, done: int, total: int, *, begins: bool) -> None:
        if begins or self._bars is None:
            self._end()
            counts = DownloadColumn(binary_units=True) if progress.in_bytes else MofNCompleteColumn()
            self._bars = Bars(
                TextColumn("  {task.description}", markup=False), BarColumn(), counts,
                TextColumn("{task.fields[text]}", markup=False), TimeElapsedColumn(),
                console=self._console, transient=True,
            )  # fmt: skip
            self._bars.start()
            self._bars.add_task(progress.stage, total=total, text="")
        self._bars.update(self._bars.task_ids[0], completed=done, total=total, text=progress.text)

    def _end(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _tell(self, progress: Progress, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - self._told_at >= LINE_SECONDS:
            self._told_at = now
            self._line(f"  {progress.stage} {done}/{total} {progress.text}".rstrip())

    def _tell_bytes(self, progress: Progress, done: int, total: int) -> None:
        """A line for every tenth of the way."""
        tenths = 10 * done // max(total, 1)
        if tenths > self._tenths:
            self._tenths = tenths
            self._line(f"  {progress.stage} {10 * tenths} % {progress.text}".rstrip())

    def _line(self, text: str) -> None:
        typer.echo(text, file=self._console.file)

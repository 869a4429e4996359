"""Facts and tables: Rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from edgewright_builder.push.transfer import Sent

Rows = Sequence[tuple[str, ...]]


def facts(console: Console, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Names and values: aligned on a terminal, `name: value` elsewhere."""
    if not console.is_terminal:
        _lines(console, [title, *(f"  {name}: {value}" for name, value in rows)])
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    console.print(f"[bold cyan]{escape(title)}[/]")
    console.print(table)


def table(console: Console, columns: Sequence[str], rows: Rows) -> None:
    """A table: ruled on a terminal, tab-separated elsewhere."""
    if not console.is_terminal:
        _lines(console, ["\t".join(row) for row in [tuple(columns), *rows]])
        return
    ruled = Table(header_style="bold cyan")
    for index, column in enumerate(columns):
        numeric = all(row[index][:1].isdigit() for row in rows if row[index])
        ruled.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        ruled.add_row(*(escape(cell) for cell in row))
    console.print(ruled)


def _lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        typer.echo(line, file=console.file)  # not Rich's print, which widens tabs


class TransferBar:
    """Shows bytes on their way: a bar with rate and time left, or a line for every tenth of the way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("  sending"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(),
            TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("sending", total=None, visible=False)  # until something travels
        self._tenths = 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While the context is open, on a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with self._bar:
            yield

    def update(self, sent: Sent) -> None:
        """Takes note of progress."""
        if self._console.is_terminal:
            self._bar.update(self._task, completed=sent.bytes, total=sent.total_bytes, visible=True)
            return
        tenths = 10 * sent.bytes // max(sent.total_bytes, 1)
        if tenths > self._tenths:
            self._tenths = tenths
            left = (sent.total_bytes - sent.bytes) / sent.bytes_per_second
            line = f"  sent {10 * tenths} % at {sent.bytes_per_second / 1e6:.1f} MB/s, {left:.0f} s left"
            _lines(self._console, [line])

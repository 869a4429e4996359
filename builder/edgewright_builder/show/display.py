"""Facts and tables: Rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Rows = Sequence[tuple[str, ...]]
NAME_CHARACTERS_MAX = (
    30  # a first column up to this width is shown whole; others are folded where room is short
)
COLUMN_CHARACTERS_MIN = 8  # of a ruled table, its rules included: below it Rich leaves columns out


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
    """A table: ruled on a terminal that is wide enough, tab-separated elsewhere."""
    if not console.is_terminal or console.width < COLUMN_CHARACTERS_MIN * len(columns):
        _lines(console, ["\t".join(row) for row in [tuple(columns), *rows]])
        return
    ruled = Table(header_style="bold cyan")
    for index, column in enumerate(columns):
        cells = [row[index] for row in rows]
        numeric = all(cell[:1].isdigit() for cell in cells if cell)
        whole = index == 0 and max(map(len, cells), default=0) <= NAME_CHARACTERS_MAX
        ruled.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        ruled.add_row(*(escape(cell) for cell in row))
    console.print(ruled)


def _lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        typer.echo(line, file=console.file)  # not Rich's print, which widens tabs

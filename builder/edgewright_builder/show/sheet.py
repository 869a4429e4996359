"""A result laid out once, and shown in four ways: on a terminal, in a pipe, as text, and as HTML in a notebook."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from importlib.util import find_spec
from typing import Protocol, TypeAlias, TypeVar

from rich.console import Console

from edgewright_builder.show import display

TEXT_COLUMNS = 160  # of tables that Rich rules


@dataclass(frozen=True)
class Facts:
    """Names and values under a title."""

    title: str
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Grid:
    """A table."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Lines:
    """Sentences, one a line. `style` is Rich's."""

    lines: Sequence[str]
    style: str = ""


@dataclass(frozen=True)
class Drawn:
    """What a function prints, where facts, tables and lines are not enough."""

    draw: Callable[[Console], None]


Part: TypeAlias = "Facts | Grid | Lines | Drawn"
Pictures = Callable[[], Mapping[str, str]]  # SVG by title; called for HTML alone


@dataclass(frozen=True)
class Sheet:
    """Parts in the order in which they are read; pictures come first where there is HTML."""

    parts: Sequence[Part]
    pictures: Pictures = dict


class Shown(Protocol):
    """What has a sheet."""

    def _sheet(self) -> Sheet: ...


ShownType = TypeVar("ShownType", bound=type[Shown])


def shown(kind: ShownType) -> ShownType:
    """Lets a class with a `_sheet` print itself and draw itself in a notebook."""
    kind.__str__ = lambda self: as_text(self._sheet())  # type: ignore[method-assign, attr-defined]
    kind._repr_html_ = lambda self: as_html(self._sheet())  # type: ignore[attr-defined]
    return kind


def print_result(console: Console, result: Shown) -> None:
    """Prints a result for people: aligned and ruled on a terminal, plain lines elsewhere."""
    print_sheet(console, result._sheet())


def print_sheet(console: Console, sheet: Sheet) -> None:
    """Prints a sheet without its pictures."""
    for part in sheet.parts:
        if isinstance(part, Facts):
            display.facts(console, part.title, part.rows)
        elif isinstance(part, Grid):
            display.table(console, part.columns, part.rows)
        elif isinstance(part, Drawn):
            part.draw(console)
        else:
            for line in part.lines:
                console.print(line, style=part.style or None, markup=False, soft_wrap=True)


def as_text(sheet: Sheet) -> str:
    """Returns what a pipe would get, without the last line's end."""
    return _printed(lambda console: print_sheet(console, sheet))


def _printed(draw: Callable[[Console], None]) -> str:
    text = io.StringIO()
    draw(Console(file=text, width=TEXT_COLUMNS, highlight=False, color_system=None))
    return text.getvalue().rstrip("\n")


def as_html(sheet: Sheet) -> str:
    """Returns HTML that needs nothing but itself; without the builder's libraries, without pictures."""
    pictures = sheet.pictures() if find_spec("markupsafe") else {}
    drawn = [
        f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in pictures.items()
    ]
    body = "".join([*drawn, *map(_html_of, sheet.parts)])
    return f'<div class="edgewright"><style>{_style()}</style>{body}</div>'


@cache
def _style() -> str:
    return (files("edgewright_builder.show") / "notebook.css").read_text(encoding="utf-8")


def _html_of(part: Part) -> str:
    if isinstance(part, Drawn):
        return f"<pre>{escape(_printed(part.draw))}</pre>"
    if isinstance(part, Lines):
        return "".join(f"<p>{escape(line.strip())}</p>" for line in part.lines)
    if isinstance(part, Facts):
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in part.rows
        )
        return f"<p><b>{escape(part.title)}</b></p><table>{rows}</table>"
    head = "".join(f"<th>{escape(column)}</th>" for column in part.columns)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in part.rows)
    return f"<table><tr>{head}</tr>{rows}</table>"

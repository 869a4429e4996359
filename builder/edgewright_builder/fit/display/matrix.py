"""The matrix of `check --all` as people read it: on a terminal, in a pipe, in a README."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgewright_builder.fit.matrix import LEGEND, Cell, Column, columns_of

MODEL_CELLS, BOARD_CELLS = 26, 9  # widths of the columns


def print_matrix(console: Console, rows: Sequence[Sequence[Cell]]) -> None:
    """Models down, boards across: in as many tables as the width asks for, or as Markdown in a pipe."""
    if not console.is_terminal:
        console.print(matrix_markdown(rows), markup=False, soft_wrap=True)
        return
    columns = columns_of(rows)
    shown, side_by_side = served(columns), max(1, (console.width - MODEL_CELLS) // BOARD_CELLS)
    for first in range(0, len(shown), side_by_side):
        console.print(_matrix_table(shown[first : first + side_by_side]))
    for line in legend(columns):
        console.print(line, style="dim", markup=False)


def _matrix_table(columns: Sequence[Column]) -> Table:
    table = Table(header_style="bold cyan", padding=(0, 1), show_lines=False)
    table.add_column("model", no_wrap=True)
    for column in columns:
        table.add_column(f"{', '.join(column.labels)}: {column.engine}", justify="right")
    for cells in zip(*(column.cells for column in columns), strict=True):
        texts = (_coloured(column, cell) for column, cell in zip(columns, cells, strict=True))
        table.add_row(cells[0].model, *texts)
    return table


def matrix_markdown(rows: Sequence[Sequence[Cell]]) -> str:
    """Returns the matrix for a README, which shows some 900 pixels."""
    columns = columns_of(rows)
    shown = served(columns)
    lines = [
        "| model | " + " | ".join(map(_header, shown)) + " |",
        "|---|" + "--:|" * len(shown),
    ]
    for cells in zip(*(column.cells for column in shown), strict=True):
        texts = (column.text_of(cell) for column, cell in zip(shown, cells, strict=True))
        lines.append(f"| {cells[0].model} | " + " | ".join(texts) + " |")
    return "\n".join([*lines, "", *(f"{line}  " for line in legend(columns))])


def _header(column: Column) -> str:
    """Returns the boards, and below them the engines that serve there."""
    return f"{',<br>'.join(column.labels)}<br>*{column.engine}*"


def served(columns: Sequence[Column]) -> list[Column]:
    """Returns those of boards where the engine runs; all where it runs on none."""
    return [column for column in columns if column.served] or list(columns)


def legend(columns: Sequence[Column]) -> tuple[str, ...]:
    """Returns what the cells mean, and which boards are not shown."""
    hidden = [label for column in columns if not column.served for label in column.labels]
    note = (f"Not shown, as the engine does not run there: {', '.join(hidden)}",) if hidden else ()
    return (*LEGEND, *note)


def _coloured(column: Column, cell: Cell) -> Text:
    colour = (
        "dim" if not cell.served else "green" if cell.context_tokens else "yellow" if cell.layers else "red"
    )
    return Text(column.text_of(cell), colour)

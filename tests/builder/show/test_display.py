"""What a terminal has no room for is not left out."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from edgewright_builder.show import display

COLUMNS = ("release", "name", "version", "counter", "size", "engine", "state")
ROW = ("c5e7acdcdc33", "tiny", "1.0", "1", "11.7 KiB", "fake", "active")


def printed(width: int) -> str:
    output = io.StringIO()
    display.table(Console(file=output, force_terminal=True, color_system=None, width=width), COLUMNS, [ROW])
    return output.getvalue()


@pytest.mark.parametrize("width", [1, 20, 40])
def test_a_terminal_too_narrow_for_a_table_gets_its_lines(width: int) -> None:
    assert printed(width) == "\t".join(COLUMNS) + "\n" + "\t".join(ROW) + "\n"


@pytest.mark.parametrize("width", [80, 200])
def test_a_wide_one_gets_every_cell_under_its_column(width: int) -> None:
    head, row = (line for line in printed(width).splitlines() if "e" in line)
    assert [cell.strip() for cell in head.split("┃")[1:-1]] == [*COLUMNS]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [*ROW]

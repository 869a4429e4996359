"""A notebook's code cells, run one after another in one namespace, as a kernel runs them."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cell:
    """A code cell. It has its number among all cells, and what was stored of an earlier run."""

    name: str
    source: str
    outputs: list[Any]
    execution_count: int | None


def code_cells(notebook: Path) -> list[Cell]:
    """Returns the code cells of a notebook of format 4."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [
        Cell(f"{notebook.name}[{i}]", "".join(cell["source"]), cell["outputs"], cell["execution_count"])
        for i, cell in enumerate(cells)
        if cell["cell_type"] == "code"
    ]


def run_cell(cell: Cell, namespace: dict[str, Any]) -> Any:
    """Runs a cell; returns the value of its last line if that is an expression, which a notebook would show."""
    tree = ast.parse(cell.source, cell.name)
    shown = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, cell.name, "exec"), namespace)
    if not isinstance(shown, ast.Expr):
        return None
    return eval(compile(ast.Expression(shown.value), cell.name, "eval"), namespace)

"""The notebook in `examples/` runs from top to bottom, on a tiny build and a real agent."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path
from typing import Any

import pytest

import edgewright as ew
from tests.support.notebook import Cell, code_cells, run_cell
from tests.support.tiny_build import Built

NOTEBOOK = Path(__file__).parents[2] / "examples" / "sdk.ipynb"
CELLS = code_cells(NOTEBOOK)
DRAWN = {
    "Fit", "PlanChoice", "RunFolder", "PushResult", "BoardStatus", "Completion", "BenchReport",
    "TelemetrySnapshot", "BoardReleases",
}  # fmt: skip


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_cell_is_python_names_what_the_sdk_has_and_stores_no_output(cell: Cell) -> None:
    names = {
        node.attr
        for node in ast.walk(ast.parse(cell.source, cell.name))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ew"
    }
    assert names <= set(ew.__all__)
    assert cell.outputs == []
    assert cell.execution_count is None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs_and_its_results_draw_themselves(
    built: Built, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_RUN", str(built.run))
    monkeypatch.setenv("EDGEWRIGHT_CREDENTIALS", str(built.recipe.parent / "credentials"))
    namespace: dict[str, Any] = {}
    drawn = set()
    try:
        for cell in CELLS:
            value = run_cell(cell, namespace)
            if hasattr(value, "_repr_html_"):
                assert "<" in value._repr_html_()
                drawn.add(type(value).__name__)
    finally:
        end(namespace)
    assert drawn == DRAWN
    assert namespace["agent"].returncode == 0
    assert namespace["generation"].completion.generated_tokens > 0
    assert "previous" in capsys.readouterr().out


def end(namespace: dict[str, Any]) -> None:
    """Ends the agent where a cell failed before the last one did."""
    agent = namespace.get("agent")
    if isinstance(agent, subprocess.Popen) and agent.poll() is None:
        agent.terminate()
        agent.wait(timeout=60)

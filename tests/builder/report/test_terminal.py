"""The report on the terminal: the page's numbers, without its libraries."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from edgewright.errors import InputError
from edgewright_builder.cli.host.report import report
from edgewright_builder.report import summary_table, write_report
from edgewright_builder.report.inputs import read_run
from edgewright_builder.report.summary import key_numbers
from edgewright_builder.report.terminal import ladder_table
from tests.builder.report.sample_run import (
    write_json,
)


def test_what_is_no_run_folder_is_refused_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a folder"):
        write_report(tmp_path / "nowhere")


def test_the_terminal_shows_the_same_numbers_as_the_page(run: Path) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(summary_table(run))
    shown = console.export_text()
    for number in key_numbers(read_run(run)):
        assert number.value in shown
    assert "It fits" in shown


def test_the_terminal_shows_the_ladder_with_every_model(run: Path) -> None:
    console = Console(width=120, file=io.StringIO())
    table = ladder_table(run)
    assert table is not None
    console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    for name in ("teacher", "student", "fine-tuned", "GPTQ", "recovered", "exported", "on the device"):
        assert sum(line.strip().startswith(name) for line in lines) == 1, name
    (recovered,) = (line for line in lines if line.strip().startswith("recovered"))
    assert "0.094 ± 0.011" in recovered


def test_a_model_is_named_after_the_method_that_quantized_it(run: Path) -> None:
    stage = json.loads((run / "quantize" / "stage.json").read_text())
    write_json(run / "quantize" / "stage.json", stage | {"summary": {"method": "autoround"}})
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(ladder_table(run))
    page = write_report(run).read_text(encoding="utf-8")

    assert "AutoRound" in console.export_text()
    assert "AutoRound, 4 bits" in page
    assert "trained after AutoRound, 4 bits" in page
    assert "GPTQ, 4 bits" not in page


def test_a_run_without_measurements_has_no_ladder(tmp_path: Path) -> None:
    assert ladder_table(tmp_path) is None


def test_the_terminal_prints_brackets_as_they_are(run: Path) -> None:
    plan = json.loads((run / "plan.json").read_text())
    write_json(run / "plan.json", plan | {"device": {"id": "[red]x[/]"}, "budget_bytes": "[bold]"})
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(summary_table(run))
    assert "plan.json can't be read" in console.export_text()


def test_the_report_needs_no_heavy_library() -> None:
    code = "import sys, edgewright_builder.report; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_whose_search_has_not_ended_has_a_report_and_a_folder_that_is_no_run_has_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "recipe.yaml").write_text("name: x\n", encoding="utf-8")
    report(tmp_path)
    assert (tmp_path / "report.html").is_file()
    with pytest.raises(InputError, match="is not a run: it has no recipe"):
        report(tmp_path / "elsewhere")

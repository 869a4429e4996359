"""The report's key numbers as a table for the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from edgewright_builder.report.inputs import RunInputs, read_run
from edgewright_builder.report.summary import key_numbers, unfinished_stages, verdict

STYLES = {"good": "bold green", "warn": "bold yellow", "bad": "bold red", "plain": "bold", "absent": "dim"}


def summary_table(run: Path) -> Table:
    """Returns the verdict and key numbers of `run`; raises InputError if it is no folder."""
    inputs = read_run(run)
    conclusion = verdict(inputs)
    table = Table(
        title=f"[{STYLES[conclusion.tone]}]{escape(conclusion.text)}[/]",
        caption=_caption(inputs),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("", style="dim")
    table.show_header = False
    for number in key_numbers(inputs):
        value = f"[{STYLES[number.tone]}]{escape(number.value)}[/]"
        table.add_row(escape(number.name), value, escape(number.detail))
    return table


def _caption(inputs: RunInputs) -> str | None:
    lines = [f"Not done yet: {', '.join(unfinished_stages(inputs))}."] if unfinished_stages(inputs) else []
    return escape("\n".join([*lines, *inputs.problems])) or None

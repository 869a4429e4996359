"""The report's key numbers and its ladder as tables for the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from edgewright_builder.report.inputs import RunInputs, read_run
from edgewright_builder.report.ladder import ladder
from edgewright_builder.report.summary import key_numbers, unfinished_stages, verdict

SHORT_NAMES = {
    "teacher": "teacher",
    "student": "student",
    "finetuned": "fine-tuned",
    "recovered": "recovered",
    "exported": "exported",
    "device": "on the device",
}
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


def ladder_table(run: Path) -> Table | None:
    """Returns what each step of the build brings and costs; None before anything is measured."""
    inputs = read_run(run)
    names_by_model = SHORT_NAMES | {"quantized": inputs.quantizer}
    tasks, rows = ladder(inputs)
    if not rows:
        return None
    table = Table(title="What each step brings", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    names = ["accuracy"] if len(tasks) == 1 else tasks
    measured = (part for name in names for part in (f"{name}, %", "change"))
    for column in ("KL to 16 bits", *measured, "size", "time"):
        table.add_column(column, justify="right")
    for row in rows:
        cells = (cell for columns in row.columns for cell in columns)
        bare = (cell.removesuffix(" %").removesuffix(" points") for cell in cells)
        table.add_row(names_by_model[row.model], row.to_finetuned, *bare, row.size, row.time)
    return table

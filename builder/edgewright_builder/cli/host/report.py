"""`edgewright report`: one page about a run, and its key numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgewright.errors import InputError


def report(
    run: Annotated[Path, typer.Argument(help="The run's folder.", show_default=False)],
) -> None:
    """Write RUN/report.html and print the key numbers."""
    from edgewright_builder.report import write_report
    from edgewright_builder.report.terminal import summary_table

    if (run / "finetune" / "adapter" / "model.onnx_adapter").is_file():
        raise InputError(
            f"{run} is the build of an adapter, of which there is no report: its figures are in "
            f"{run / 'evaluate' / 'results.json'}, and `edgewright build` with --resume prints them again."
        )
    if not any((run / name).is_file() for name in ("recipe.yaml", "plan.json")):
        raise InputError(f"{run} is not a run: it has no recipe.yaml. `edgewright build` makes one.")
    path = write_report(run)
    console = Console(highlight=False)
    console.print(summary_table(run))
    console.print(f"Report: {path.resolve()}", markup=False, soft_wrap=True)

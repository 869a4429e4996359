"""`edgewright report`: one page about a run, and its key numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgewright_builder.cli.output import console
from edgewright_builder.python_api.run_folder import open_run
from edgewright_builder.show.sheet import print_result


def report(
    run: Annotated[Path, typer.Argument(help="The run's folder.", show_default=False)],
) -> None:
    """Write RUN/report.html and print the key numbers."""
    finished_run = open_run(run)
    path = finished_run.report()
    print_result(console(), finished_run)
    console().print(f"Report: {path.resolve()}", markup=False, soft_wrap=True)

"""`edgewright study STUDY.yaml -o DIR` and `edgewright study report DIR`: builds that differ, and what that shows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from edgewright_builder.cli.output import console, stoppable

RUN = "run"


class _RunByDefault(TyperGroup):
    """A group whose first word may be a file: then it is run."""

    default_command = RUN

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts `run` first, unless a command or a wish for help is there."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    help="Studies: builds that differ in a few keys, and what that shows. `edgewright study FILE` runs one.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command(RUN)
@stoppable("Stopped. Run the same command again with --resume to go on.")
def run(
    study: Annotated[Path, typer.Argument(help="The study, a YAML file.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The study's folder.", show_default=False)],
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that run cells on this host.")] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            help="A database that workers on other hosts share, like postgresql://HOST/NAME.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in a folder that exists.")] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1_000_000,
            help="Begin no cell after so many minutes; --resume goes on.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the cells of a study that are not done, then write its report."""
    from edgewright_builder.python_api.libraries import own_errors
    from edgewright_builder.run.library_output import quiet_libraries
    from edgewright_builder.study.run_study import StudyOrder, conduct

    quiet_libraries()
    with own_errors():
        seconds_max = math.inf if minutes is None else 60 * minutes
        order = StudyOrder(study, out, storage, workers, resume, seconds_max=seconds_max)
        done = conduct(order, Console(highlight=False))
    if done:
        _report(out)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The study's folder.", show_default=False)],
) -> None:
    """Write DIR/report.html, the tables and the figures, and print the answers."""
    _report(folder)


def _report(folder: Path) -> None:
    from edgewright_builder.study.report import lines_of, write_study_report

    path = write_study_report(folder)
    for line in lines_of(folder):
        console().print(line, markup=False, highlight=False, soft_wrap=True)
    console().print(f"Report: {path.resolve()}", markup=False, highlight=False, soft_wrap=True)

"""`edgewright eval`: accuracy of the bytes that serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgewright_builder.cli.boards import open_board
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure, Save
from edgewright_builder.cli.output import console, emit, stoppable
from edgewright_builder.cli.progress_view import ProgressView
from edgewright_builder.show.sheet import print_result


@stoppable()
def evaluate(
    host: Host,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between, or paths of .jsonl files. (default: arc_easy)",
            show_default=False,
        ),
    ] = None,
    benchmarks: Annotated[
        Path | None,
        typer.Option(help="Folder of evaluation files; without it, from the hub.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use the first N rows of each task.", show_default=False)
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Ask what this build was asked on the host, and show the difference.",
            show_default=False,
        ),
    ] = None,
    credentials: Credentials = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Measure the accuracy of what a board serves, by its log-likelihoods."""
    out = console(as_json=as_json)
    with open_board(host, credentials, insecure) as board, ProgressView(out).shown() as view:
        evaluation = board.eval(tasks, benchmarks=benchmarks, limit=limit, compare=compare, on_progress=view)
    emit("eval", evaluation, as_json=as_json, save=save)
    if not as_json:
        print_result(out, evaluation)

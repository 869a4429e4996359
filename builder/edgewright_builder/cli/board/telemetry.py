"""`edgewright telemetry`: what a board measures, now, continuously, or what it has recorded."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright_builder.cli.boards import open_board
from edgewright_builder.cli.given import refuse_with, refuse_without
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure, Save
from edgewright_builder.cli.output import console, emit, emit_line, stoppable
from edgewright_builder.show.sheet import print_result


@stoppable()
def telemetry(
    ctx: typer.Context,
    host: Host,
    credentials: Credentials = None,
    insecure: Insecure = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=60.0, help="Seconds between lines of --follow.")
    ] = 1.0,
    recorded_after: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="SEQUENCE",
            help="What the board recorded after this number; 0 is all of it. One line each.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Show latency, memory, energy and temperature of a board. With --json --follow: one document a line."""
    if recorded_after is not None:
        refuse_with(ctx, "--recorded-after", "follow", "save")
    if follow:
        refuse_with(ctx, "--follow", "save")
    else:
        refuse_without(ctx, "--follow", "interval")
    with open_board(host, credentials, insecure) as board:
        if recorded_after is not None:
            for entry in board.recorded_telemetry(recorded_after):
                _print_line("telemetry-record", entry, str(entry), as_json=as_json)
        elif follow:
            for snapshot in board.watch_telemetry(interval):
                _print_line("telemetry", snapshot, snapshot.line, as_json=as_json)
        else:
            found = board.telemetry()
            emit("telemetry", found, as_json=as_json, save=save)
            if not as_json:
                print_result(console(), found)


def _print_line(schema: str, result: object, line: str, *, as_json: bool) -> None:
    if as_json:
        emit_line(schema, result)
    else:
        typer.echo(line)

"""`edgewright telemetry`: what a board measures, now, continuously, or what it has recorded."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from edgewright.v1.telemetry_pb2 import Snapshot
from edgewright_builder.cli.connection import as_document, connect, console, emit, run
from edgewright_builder.cli.given import refuse_with, refuse_without
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure, Save
from edgewright_builder.device import record
from edgewright_builder.device.patience import Patience
from edgewright_builder.show import display
from edgewright_builder.show.telemetry import recorded_line, snapshot_facts, snapshot_line

LINK_SECONDS = 30.0  # a link that broke is waited for


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

    async def once() -> Snapshot:
        async with connect(host, credentials, insecure) as client:
            return await client.get_snapshot()

    async def for_ever() -> None:
        async with connect(host, credentials, insecure) as client:
            async for snapshot in client.watch_telemetry(interval):
                typer.echo(json.dumps(as_document(snapshot)) if as_json else snapshot_line(snapshot))

    async def recorded(after_sequence: int) -> None:
        async with connect(host, credentials, insecure) as client:
            async for sequence, snapshot in record.recorded(client, after_sequence, Patience(LINK_SECONDS)):
                document = {"sequence": sequence, **as_document(snapshot)}
                typer.echo(json.dumps(document) if as_json else recorded_line(sequence, snapshot))

    if recorded_after is not None:
        refuse_with(ctx, "--recorded-after", "follow", "save")
    if follow:
        refuse_with(ctx, "--follow", "save")
    else:
        refuse_without(ctx, "--follow", "interval")
    if recorded_after is not None:
        run(recorded(recorded_after))
        return
    if follow:
        run(for_ever())
        return
    snapshot = run(once())
    emit(as_document(snapshot), as_json=as_json, save=save)
    if not as_json:
        display.facts(console(), host, snapshot_facts(snapshot))

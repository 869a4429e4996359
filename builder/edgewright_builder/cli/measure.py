"""Commands that measure what a board serves: telemetry, eval; and bench, which has a file of its own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewright.v1.telemetry_pb2 import Snapshot
from edgewright_builder.cli.bench import bench
from edgewright_builder.cli.connection import as_document, connect, console, emit, run
from edgewright_builder.cli.given import refuse_with, refuse_without
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure, Save
from edgewright_builder.device import record
from edgewright_builder.device.patience import Patience
from edgewright_builder.device.score import RemoteScorer, require_scores
from edgewright_builder.run.progress import Reporter
from edgewright_builder.show import display
from edgewright_builder.show.telemetry import recorded_line, snapshot_facts, snapshot_line

LINK_SECONDS = 30.0  # a link that broke is waited for


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(telemetry)
    app.command()(bench)
    app.command(name="eval")(evaluate)


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


def evaluate(
    host: Host,
    tasks: Annotated[
        str, typer.Option(help="Names with commas between, or paths of .jsonl files.")
    ] = "arc_easy",
    benchmarks: Annotated[
        Path | None,
        typer.Option(help="Folder of evaluation files; without it, from the hub.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="First N rows of each.", show_default=False)
    ] = None,
    credentials: Credentials = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Measure accuracy on the bytes that serve, by log-likelihoods asked of the board."""
    from edgewright_builder.tasks.loading import load_task

    async def ask() -> None:
        async with connect(host, credentials, insecure) as client:
            await require_scores(client)

    run(ask())
    loaded = [load_task(name, benchmarks, limit) for name in tasks.split(",")]
    reporter = Reporter(console(as_json=as_json))

    async def work() -> list[dict[str, Any]]:
        async with connect(host, credentials, insecure) as client:
            scorer = RemoteScorer(client, asyncio.get_running_loop())
            return [await asyncio.to_thread(_run_one, scorer, task, reporter) for task in loaded]

    results = run(work())
    emit({"results": results}, as_json=as_json, save=save)
    if not as_json:
        rows = [
            (found["task"], f"{found['accuracy']:.4f}", f"{found['standard_error']:.4f}", str(found["rows"]))
            for found in results
        ]
        display.table(console(), ("task", "accuracy", "standard error", "rows"), rows)


def _run_one(scorer: RemoteScorer, task: Any, reporter: Reporter) -> dict[str, Any]:
    from edgewright_builder.scoring.scoring import run_task

    with reporter.stage_progress(task.name):
        result = run_task(scorer, task, on_progress=reporter.step)
    accuracy = result.accuracy()
    return {
        "task": result.task,
        "model": "served",
        "metric": result.metric,
        "accuracy": accuracy.value,
        "standard_error": accuracy.standard_error,
        "rows": accuracy.rows,
        "outcomes": result.correct(),
    }

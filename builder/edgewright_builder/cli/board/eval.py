"""`edgewright eval`: accuracy of the bytes that serve."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewright_builder.cli.connection import connect, console, emit, run
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure, Save
from edgewright_builder.device.score import RemoteScorer, require_scores
from edgewright_builder.run.progress import Reporter
from edgewright_builder.show import display


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
        int | None, typer.Option(min=1, help="Use the first N rows of each task.", show_default=False)
    ] = None,
    credentials: Credentials = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Measure the accuracy of what a board serves, by its log-likelihoods."""
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
    from edgewright_builder.tasks.results import run_task

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

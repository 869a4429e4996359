"""The bench command: a board, or a run's model on this machine; alone, or beside an earlier result."""

from __future__ import annotations

import secrets
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgewright.errors import InputError
from edgewright.v1.telemetry_pb2 import BenchmarkResult
from edgewright_agent.benchmark.load import BenchmarkPlan
from edgewright_builder.bench import tables
from edgewright_builder.bench.board import OnProgress, run_from_here, run_on_board, subject_of
from edgewright_builder.bench.results import Bench, bench_to_json, read_bench
from edgewright_builder.cli.connection import connect, console, emit, run
from edgewright_builder.cli.given import refuse_with, refuse_without
from edgewright_builder.cli.options import AsJson, Credentials, Insecure, Save
from edgewright_builder.run.progress import Reporter
from edgewright_builder.show import display

HOST_PROMPTS_MIN = 4
SEED_BITS = 32
# Parameters of `bench` that ask for no more than one thing.
OF_A_BOARD = ("credentials", "insecure", "host_prompts")
OF_A_RUN = ("prompts", "input_tokens", "output_tokens", "concurrency", "warmup", "repeats")


class BenchStage(str, Enum):
    """Which of a run's models."""

    finetuned = "finetuned"
    exported = "exported"


Target = Annotated[
    str | None,
    typer.Argument(
        metavar="HOST:PORT | FILE.json",
        help="The board to measure, or a result saved earlier.",
        show_default=False,
    ),
]
Local = Annotated[
    Path | None,
    typer.Option(
        "--local",
        metavar="RUN",
        help="Measure a run's model on this machine instead.",
        show_default=False,
    ),
]
StageOption = Annotated[
    BenchStage, typer.Option(help="With --local: before quantization (float32), or what ships.")
]
Prompts = Annotated[int, typer.Option(min=1, max=10_000, help="How many prompts.")]
InputTokens = Annotated[int, typer.Option("--input", min=1, help="Tokens in each prompt.")]
OutputTokens = Annotated[int, typer.Option("--output", min=1, help="Tokens in each answer.")]
Concurrency = Annotated[int, typer.Option(min=1, max=64, help="Prompts under way at once.")]
Warmup = Annotated[int, typer.Option(min=0, help="Prompts before the clock starts.")]
Repeats = Annotated[int, typer.Option(min=1, max=100, help="Runs, to see how far they differ.")]
HostPrompts = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Prompts sent from here, to measure the link; 0: none. (default: 2 × concurrency, at least 4)",
        show_default=False,
    ),
]
Compare = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN | FILE.json",
        help="Show beside it: a saved result, or a run's model before quantization.",
        show_default=False,
    ),
]
Plot = Annotated[
    Path | None, typer.Option(metavar="FILE.html", help="Draw the result, to this file.", show_default=False)
]


def bench(
    ctx: typer.Context,
    target: Target = None,
    credentials: Credentials = None,
    insecure: Insecure = False,
    local: Local = None,
    stage: StageOption = BenchStage.finetuned,
    prompts: Prompts = 30,
    input_tokens: InputTokens = 128,
    output_tokens: OutputTokens = 64,
    concurrency: Concurrency = 1,
    warmup: Warmup = 2,
    repeats: Repeats = 1,
    host_prompts: HostPrompts = None,
    compare: Compare = None,
    plot: Plot = None,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Measure throughput, latency, memory and energy: on the board, and as this machine sees it over the link."""
    before = None if compare is None else read_bench(_result_in(compare))
    reporter = Reporter(console(as_json=as_json))
    plan = BenchmarkPlan(
        prompts, input_tokens, output_tokens, concurrency, warmup, secrets.randbits(SEED_BITS)
    )
    if (target is None) == (local is None):
        raise InputError("Name what to measure: a board as HOST:PORT, a saved FILE.json, or --local RUN.")
    if local is not None:
        refuse_with(ctx, "--local", *OF_A_BOARD)
        found = _locally(local, stage, plan, repeats, reporter)
    elif str(target).endswith(".json"):
        refuse_with(ctx, "a saved result", "stage", *OF_A_BOARD, *OF_A_RUN)
        found = read_bench(Path(str(target)))
    else:
        refuse_without(ctx, "--local RUN", "stage")
        ours = min(prompts, max(HOST_PROMPTS_MIN, 2 * concurrency)) if host_prompts is None else host_prompts
        found = run(_board(str(target), credentials, insecure, plan, repeats, ours, reporter))
    document = bench_to_json(found)
    if before is not None:
        document["compared_with"] = bench_to_json(before)
    emit(document, as_json=as_json, save=save)
    if not as_json:
        show(console(), str(target or local), found, before)
    if plot is not None:
        _draw(plot, found, before)


def show(out: Console, title: str, found: Bench, before: Bench | None) -> None:
    """Prints the result, and the comparison if there is one."""
    display.facts(out, title, tables.facts(found))
    display.table(out, *tables.throughput(found))
    display.table(out, tables.LATENCY_COLUMNS, tables.latency_rows(found))
    if before is None:
        return
    display.table(out, *tables.comparison(before, found))
    for line in tables.unlike(before, found):
        out.print(line, style="yellow", markup=False)


async def _board(
    host: str,
    credentials: Path | None,
    insecure: bool,
    plan: BenchmarkPlan,
    repeats: int,
    host_prompts: int,
    reporter: Reporter,
) -> Bench:
    async with connect(host, credentials, insecure) as client:
        runs: list[BenchmarkResult] = []
        for number in range(repeats):
            with reporter.stage_progress(_name("on the board", number, repeats)):
                runs.append(
                    await run_on_board(client, replace(plan, seed=plan.seed + number), _steps(reporter))
                )
        device, releases = await client.get_device(), await client.list_releases()
        found = Bench(subject_of(host, device, releases, await client.get_snapshot()), tuple(runs))
        if not host_prompts:
            return found
        with reporter.stage_progress("from here"):
            ours = replace(
                plan,
                prompts=host_prompts,
                warmup_prompts=min(plan.warmup_prompts, 1),
                seed=secrets.randbits(SEED_BITS),
            )
            seen, link = await run_from_here(client, ours, _steps(reporter))
    return replace(found, host=seen, link_seconds=link)


def _locally(folder: Path, stage: BenchStage, plan: BenchmarkPlan, repeats: int, reporter: Reporter) -> Bench:
    """Measures, and leaves the result where --compare RUN and the report find it."""
    from edgewright_builder.bench.local import candidate, result_file, run_locally

    with reporter.stage_progress(f"{stage.value}, on this machine"):
        found = run(run_locally(candidate(folder, stage.value), plan, repeats, _steps(reporter)))
    emit(bench_to_json(found), as_json=False, save=result_file(folder, stage.value))
    return found


def _steps(reporter: Reporter) -> OnProgress:
    return lambda done, total, rate: reporter.step(done, total, f"{rate:.1f} tokens/s")


def _name(what: str, number: int, repeats: int) -> str:
    return what if repeats == 1 else f"{what} {number + 1}/{repeats}"


def _result_in(path: Path) -> Path:
    """A saved result as it is; of a run, its model before quantization."""
    if not path.is_dir():
        return path
    from edgewright_builder.bench.local import result_file

    found = result_file(path, "finetuned")
    if not found.is_file():
        raise InputError(
            f"{path} has not been measured before quantization; `edgewright bench --local {path}` does that."
        )
    return found


def _draw(path: Path, found: Bench, before: Bench | None) -> None:
    from edgewright_builder.report.bench_page import write_bench_page

    write_bench_page(path, found, before)

"""The bench command: a board, or a run's model on this machine; alone, or beside an earlier result."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgewright.errors import InputError
from edgewright_builder.cli.boards import open_board
from edgewright_builder.cli.given import refuse_with, refuse_without
from edgewright_builder.cli.options import AsJson, Credentials, Insecure, Save
from edgewright_builder.cli.output import console, emit, stoppable
from edgewright_builder.cli.progress_view import ProgressView
from edgewright_builder.python_api.benchmarks import bench_local, open_bench
from edgewright_builder.python_api.results.bench import BenchReport
from edgewright_builder.show.sheet import print_result

# Parameters of `bench` that ask for no more than one thing.
OF_A_BOARD = ("credentials", "insecure", "host_prompts")
OF_A_RUN = ("prompts", "input_tokens", "output_tokens", "concurrency", "warmup", "repeats")


class BenchedModel(str, Enum):
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
    BenchedModel, typer.Option(help="With --local: before quantization (float32), or what ships.")
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


@stoppable()
def bench(
    ctx: typer.Context,
    target: Target = None,
    credentials: Credentials = None,
    insecure: Insecure = False,
    local: Local = None,
    stage: StageOption = BenchedModel.finetuned,
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
    before = None if compare is None else open_bench(compare)
    if (target is None) == (local is None):
        raise InputError("Name what to measure: a board as HOST:PORT, a saved FILE.json, or --local RUN.")
    out = console(as_json=as_json)
    load = {
        "prompts": prompts,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "concurrency": concurrency,
        "warmup": warmup,
        "repeats": repeats,
    }
    with ProgressView(out).shown() as view:
        if local is not None:
            refuse_with(ctx, "--local", *OF_A_BOARD)
            report = bench_local(local, stage=stage.value, on_progress=view, **load)
        elif str(target).endswith(".json"):
            refuse_with(ctx, "a saved result", "stage", *OF_A_BOARD, *OF_A_RUN)
            report = open_bench(str(target))
        elif Path(str(target)).is_dir():
            raise InputError(f"{target} is a folder; --local {target} measures the model of a run.")
        else:
            refuse_without(ctx, "--local RUN", "stage")
            with open_board(str(target), credentials, insecure) as board:
                report = board.bench(host_prompts=host_prompts, on_progress=view, **load)
    _finish(report if before is None else report.compared(before), plot, as_json=as_json, save=save)


def _finish(report: BenchReport, plot: Path | None, *, as_json: bool, save: Path | None) -> None:
    emit("bench", report, as_json=as_json, save=save)
    if not as_json:
        print_result(console(), report)
    if plot is not None:
        report.plot(plot)

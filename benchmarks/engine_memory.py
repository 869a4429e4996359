"""What each setting of the ONNX Runtime worker saves in memory, and that it costs no speed.

    python benchmarks/engine_memory.py [--model llama-3.2-1b] [--context 512] [--rounds 3] [--scratch DIR]

Every variant runs in a process of its own, in turn, on the same file of random weights; the order is reversed from
round to round. Prints medians, ratios to ONNX Runtime's defaults, and the multiple of weights and KV cache beyond a
bare interpreter. `prepacked file` is what ONNX Runtime offers against second copies: repacked weights mapped from disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_shapes import Case, case
from measure_memory import bare_interpreter_bytes
from synthetic_export import write_synthetic_export

from edgewright_agent.engine_worker.model.graph import LEAN_SESSION
from edgewright_agent.engine_worker.model.onnx import LOGITS_BYTES_MAX
from edgewright_agent.engine_worker.model.weights import (
    find_mapped_weights,
    restart_high_water_mark,
    trim_heap,
)
from edgewright_agent.engines.process.cpus import default_threads
from edgewright_agent.engines.worker_launch import LEAN_MALLOC
from edgewright_builder.fit.engines import onnx
from edgewright_builder.fit.memory import stored_tensors

MIB = 2**20
GENERATED_TOKENS = 32
COLUMNS = (
    "variant", "load peak MiB", "serving peak", "at rest", "anonymous", "(peak − bare) / ideal", "decode tok/s",
    "decode ratio", "prefill ratio", "disk MiB",
)  # fmt: skip
NO_FOLDING = {key: value for key, value in LEAN_SESSION.items() if key.startswith("optimization.")}


@dataclass(frozen=True)
class Variant:
    """One way to run the engine."""

    name: str
    session: dict[str, Any]
    malloc: bool = False  # with LEAN_MALLOC
    release: bool = False  # letting go of the mapped weights
    prepacked: bool = False  # from the file that holds repacked weights


VARIANTS = (
    Variant("defaults", {}),
    Variant("no folding", NO_FOLDING),
    Variant("+ no arena, mmap threshold", dict(LEAN_SESSION), malloc=True),
    Variant("+ weights released (ours)", dict(LEAN_SESSION), malloc=True, release=True),
    Variant("prepacked file", NO_FOLDING, prepacked=True),
)


def main() -> None:
    """Runs all variants and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="llama-3.2-1b")
    parser.add_argument("--embedding-bits", type=int, default=8)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--variants",
        type=int,
        nargs="+",
        default=range(len(VARIANTS)),
        help="of the table's rows; 0 is the peer",
    )
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        folder, name, context = arguments.child
        variant = next(each for each in VARIANTS if each.name == name)
        print(json.dumps(run(Path(folder), variant, int(context))))
        return
    shape = case(arguments.model, 1, 1, 8, 1).architecture
    measured = case(
        arguments.model, shape.layers, shape.largest_group_size(), arguments.embedding_bits, arguments.context
    )
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        plain, prepacked = Path(scratch) / "plain", Path(scratch) / "prepacked"
        plain.mkdir()
        prepacked.mkdir()
        write_synthetic_export(shape, measured.configuration, plain)
        chosen = [VARIANTS[index] for index in sorted({0, *arguments.variants})]
        if any(variant.prepacked for variant in chosen):
            write_prepacked(plain, prepacked)
        results = alternate(chosen, plain, prepacked, arguments.context, arguments.rounds)
        print_table(measured, chosen, results, {False: plain, True: prepacked})


def write_prepacked(plain: Path, target: Path) -> None:
    """The optimized graph and its repacked weights, as ONNX Runtime writes them for this processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(target / "model.onnx")
    entries = NO_FOLDING | {
        "session.optimized_model_external_initializers_file_name": "model.onnx.data",
        "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        "session.save_external_prepacked_constant_initializers": "1",
    }
    for key, value in entries.items():
        options.add_session_config_entry(key, str(value))
    onnxruntime.InferenceSession(str(plain / "model.onnx"), options, providers=["CPUExecutionProvider"])
    shutil.copyfile(plain / "genai_config.json", target / "genai_config.json")


def alternate(
    variants: Sequence[Variant], plain: Path, prepacked: Path, context: int, rounds: int
) -> list[list[dict[str, float]]]:
    """Results per variant; processes run one after the other."""
    results: list[list[dict[str, float]]] = [[] for _ in variants]
    for number in range(rounds):
        order = list(range(len(variants)))
        for index in order if number % 2 == 0 else reversed(order):
            variant = variants[index]
            folder = prepacked if variant.prepacked else plain
            extra = LEAN_MALLOC if variant.malloc else {"MALLOC_ARENA_MAX": "2"}
            command = [sys.executable, __file__, "--child", str(folder), variant.name, str(context)]
            environment = os.environ | extra | {"ORT_DISABLE_TELEMETRY": "1"}
            results[index].append(json.loads(subprocess.check_output(command, env=environment)))
    return results


def run(folder: Path, variant: Variant, context: int) -> dict[str, float]:
    """Loads, fills the context twice and generates, in this process. Bytes and tokens per second."""
    import numpy as np

    from edgewright_agent.engine_worker.model import graph
    from edgewright_agent.engine_worker.model.backend import CachePlace

    graph.LEAN_SESSION.clear()
    graph.LEAN_SESSION.update(variant.session)
    settings = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
    model = graph.Graph(folder, settings, default_threads(), context, rows_max=1)
    found = {"load_peak": _status("VmHWM")}
    weights = find_mapped_weights(folder / "model.onnx.data")
    release = weights.release if variant.release else lambda: None
    if variant.release:
        release()
        trim_heap()
    restart_high_water_mark()
    vocabulary, place = int(settings["vocab_size"]), [CachePlace(0, context)]
    size, decode, prefill = LOGITS_BYTES_MAX // (4 * vocabulary), [], []
    prompt = (np.arange(context - GENERATED_TOKENS) * 7919 % vocabulary).astype(np.int64)
    for _ in range(2):
        start = time.perf_counter()
        for begin in range(0, len(prompt), size):
            model.run(place, [begin], prompt[None, begin : begin + size], None)
            release()
        prefill.append(len(prompt) / (time.perf_counter() - start))
        for token in range(GENERATED_TOKENS - 1):
            start = time.perf_counter()
            model.run(place, [len(prompt) + token], np.array([[token + 5]], dtype=np.int64), None)
            decode.append(1 / (time.perf_counter() - start))
        release()
    rest = _status("VmRSS")
    speeds = {"decode": statistics.median(decode), "prefill": statistics.median(prefill)}
    return found | {"peak": _status("VmHWM"), "rest": rest, "anonymous": _status("RssAnon")} | speeds


def print_table(
    measured: Case,
    variants: Sequence[Variant],
    results: Sequence[list[dict[str, float]]],
    folders: dict[bool, Path],
) -> None:
    """Medians, and ratios to the first variant of the same round."""
    model, m, bare = measured.architecture, measured.configuration, bare_interpreter_bytes()
    weights = sum(tensor.stored_bytes for tensor in stored_tensors(model, m, onnx.TRAITS.storage))
    ideal = weights + model.kv_elements(m.context_tokens) * m.kv_bits // 8
    print(
        f"{measured.model}, {m.embedding_bits}-bit embedding, context {m.context_tokens}, {len(results[0])} rounds"
    )
    print(f"weights + KV cache {ideal / MIB:.0f} MiB, bare interpreter {bare / MIB:.1f} MiB\n")
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for variant, rounds in zip(variants, results, strict=True):
        middle = {key: statistics.median(found[key] for found in rounds) for key in rounds[0]}
        ratios = {
            key: statistics.median(
                found[key] / first[key] for found, first in zip(rounds, results[0], strict=True)
            )
            for key in ("decode", "prefill")
        }
        disk = (folders[variant.prepacked] / "model.onnx.data").stat().st_size
        print(
            f"| {variant.name} | {middle['load_peak'] / MIB:.0f} | {middle['peak'] / MIB:.0f} "
            f"| {middle['rest'] / MIB:.0f} | {middle['anonymous'] / MIB:.0f} | {(middle['peak'] - bare) / ideal:.2f} "
            f"| {middle['decode']:.1f} | {ratios['decode']:.2f} | {ratios['prefill']:.2f} | {disk / MIB:.0f} |"
        )


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()

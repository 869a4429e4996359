"""What a re-specialised model costs to send, and what sending less costs the task.

    python benchmarks/delta.py OLD_RUN NEW_RUN --task HELD_OUT.jsonl [--dead-bands 0,0.25,0.5] [--work DIR]

OLD_RUN and NEW_RUN are two builds from the same student for two tasks; a board has OLD_RUN's artifact. NEW_RUN's
merged model is quantized again against OLD_RUN's codes for each dead band, exported, and scored by the engine that
serves, on rows that neither build has seen. For each: bytes of the chunks the board lacks, bytes of the delta, their
share of the whole artifact, and the task's loss (negative log-likelihood of the right answer per byte of text) and
accuracy, with the paired difference to NEW_RUN's own quantization and its standard error over the rows.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from edgewright.manifest import Manifest, parse_manifest
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.artifact.diff import transfer_of
from edgewright_builder.artifact.fields import draft_manifest
from edgewright_builder.export.onnx import export_onnx
from edgewright_builder.local_engine.engine import local_engine
from edgewright_builder.models.folder import load_tokenizer
from edgewright_builder.models.sources import resolve_model
from edgewright_builder.quantization.calibration import CalibrationTexts, packed_calibration
from edgewright_builder.quantization.earlier_model import earlier_model
from edgewright_builder.recipe.model_recipe import Recipe, load_recipe
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import Run, digest_of_products
from edgewright_builder.stages.evaluate import EvaluatedModel, evaluate
from edgewright_builder.stages.general_text import general_samples, split_general
from edgewright_builder.stages.quantize import Quantization, quantize
from edgewright_builder.tasks.loading import Task, load_task
from edgewright_builder.tasks.results import TaskResult
from edgewright_builder.train.samples import make_sample, split

EXCLUDED = {"files", "golden", "accuracy"}


@dataclass(frozen=True)
class Variant:
    """One way to quantize the new model."""

    name: str
    tree: Path  # what would be packed
    codes_changed: float | None


def variants_of(old: Path, new: Path, recipe: Recipe, bands: Sequence[float], run: Run) -> list[Variant]:
    """NEW_RUN's own export, then one for each dead band; made once and kept in the work folder."""
    variants = [Variant("fresh GPTQ", new / "export", None)]
    calibration = calibration_of(new, recipe)
    group_size = json.loads((new / "plan.json").read_text())["group_size"]
    embedding_bits = json.loads((new / "export" / "stage.json").read_text())["summary"]["embedding_bits"]
    model = new / "finetune" / "model"
    for band in bands:
        earlier = earlier_model(old, band)
        inputs = {"model": digest_of_products(model, ("",)), "earlier": earlier.digest, "band": band}

        def work(folder: Path, earlier: Any = earlier) -> dict[str, Any]:
            job = Quantization(model, group_size, calibration, earlier)
            done = quantize(job, folder, run.reporter.step)
            return done | export_onnx(folder / "model", embedding_bits, folder)

        stage = run.stage(f"band-{band:g}", inputs, work, products=("engine", "tokenizer"))
        variants.append(Variant(f"dead band {band:g}", stage.folder, stage.summary["codes_changed_fraction"]))
    return variants


def calibration_of(new: Path, recipe: Recipe) -> list[list[int]]:
    """The sequences NEW_RUN calibrated on."""
    student, finetune, settings = resolve_model(recipe.student.model), recipe.finetune, recipe.quantize
    tokenizer = load_tokenizer(student)
    pairs = [
        json.loads(line) for line in (new / "data" / "data.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    made = (make_sample(tokenizer, pair, finetune.loss_on, finetune.sequence_tokens) for pair in pairs)
    samples = [sample for sample in made if sample is not None]
    train, _ = split(samples, finetune.validation_fraction, recipe.seed)
    general = (
        general_samples(student, recipe.recover.data, finetune.sequence_tokens)
        if settings.general_share > 0
        else []
    )
    general_train, _ = split_general(general, recipe.seed)
    texts = CalibrationTexts(
        [samples[index].tokens for index in train], [general[index].tokens for index in general_train]
    )
    return packed_calibration(
        texts, settings.calibration_tokens, settings.general_share, finetune.sequence_tokens, recipe.seed
    )


def unpacked(tree: Path, manifest: Manifest) -> Artifact:
    """An export as if it were packed."""
    drafted = draft_manifest(tree, manifest.model_dump(exclude=EXCLUDED))
    return Artifact(tree, drafted, drafted.to_bytes(), b"")


def evaluated(variants: Sequence[Variant], task: Task, manifest: Manifest, run: Run) -> dict[str, TaskResult]:
    """Each variant on the task, by its name."""
    models = [
        EvaluatedModel(
            variant.name.replace(" ", "-"),
            digest_of_products(variant.tree, ("engine",)),
            lambda tree=variant.tree: local_engine(tree, manifest),  # type: ignore[misc]
        )
        for variant in variants
    ]
    results = evaluate(models, [task], run.folder / "evaluate", on_progress=run.reporter.step).results
    return {variant.name: results[variant.name.replace(" ", "-"), task.name] for variant in variants}


def losses(result: TaskResult, task: Task) -> list[float]:
    """Nats per byte of the right answer, row by row."""
    return [
        -outcome.log_likelihoods[question.answer]
        / len(question.choices[question.answer].continuation.strip().encode())
        for question, outcome in zip(task.questions, result.outcomes, strict=True)
    ]


def paired(baseline: Sequence[float], values: Sequence[float]) -> str:
    """Mean difference ± standard error over the rows."""
    differences = [value - base for base, value in zip(baseline, values, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{statistics.fmean(differences):+.4f} ± {error:.4f}"


def row(
    variant: Variant, old: Artifact, result: TaskResult, fresh: TaskResult, task: Task
) -> tuple[str, ...]:
    """One line of the table."""
    transfer = transfer_of(old, unpacked(variant.tree, old.manifest))
    loss, correct = losses(result, task), [float(right) for right in result.correct()]
    same = result is fresh
    return (
        variant.name,
        "-" if variant.codes_changed is None else f"{variant.codes_changed:.1%}",
        f"{transfer.plain_bytes / 2**20:.1f}",
        f"{transfer.delta_bytes / 2**20:.2f}",
        f"{transfer.delta_bytes / transfer.artifact_bytes:.1%}",
        f"{statistics.fmean(loss):.4f}",
        "" if same else paired(losses(fresh, task), loss),
        f"{statistics.fmean(correct):.3f}",
        "" if same else paired([float(right) for right in fresh.correct()], correct),
    )


COLUMNS = (
    "new model", "codes changed", "chunks MiB", "delta MiB", "of artifact", "loss", "less fresh", "accuracy",
    "less fresh",
)  # fmt: skip


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old_run", type=Path)
    parser.add_argument("new_run", type=Path)
    parser.add_argument(
        "--task", required=True, help="rows (question, choices, answer) neither build has seen"
    )
    parser.add_argument("--limit", type=int, help="first rows only")
    parser.add_argument("--dead-bands", default="0,0.25,0.5")
    parser.add_argument("--work", type=Path, default=Path("delta-benchmark"))
    options = parser.parse_args()
    run = Run(options.work, Reporter(Console()))
    options.work.mkdir(parents=True, exist_ok=True)
    old_manifest = parse_manifest((options.old_run / "artifact" / "manifest.json").read_bytes())
    old = unpacked(options.old_run / "export", old_manifest)
    bands = [float(band) for band in options.dead_bands.split(",")]
    recipe = load_recipe(options.new_run / "recipe.yaml")
    variants = variants_of(options.old_run, options.new_run, recipe, bands, run)
    baseline = Variant("old model", options.old_run / "export", 0.0)
    task = load_task(options.task, None, options.limit)
    results = evaluated([*variants, baseline], task, old_manifest, run)
    fresh = results[variants[0].name]
    lines = [row(each, old, results[each.name], fresh, task) for each in (*variants, baseline)]
    print(f"{len(task.questions)} rows of {task.name}; loss in nats per byte of the right answer\n")
    widths = [max(map(len, cells)) for cells in zip(COLUMNS, *lines, strict=True)]
    for cells in (COLUMNS, *lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)))


if __name__ == "__main__":
    main()

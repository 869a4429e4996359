"""The stage `finetune`: a LoRA with the search's best settings, trained on all data and merged into the student."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.durable import write_json
from edgewright_builder.stages.search import read_best
from edgewright_builder.stages.teacher import training_of

if TYPE_CHECKING:
    from edgewright_builder.recipe.hyperparameters import TrialSettings
    from edgewright_builder.run.build_definition import Build
    from edgewright_builder.run.distillation_inputs import Distillation
    from edgewright_builder.run.resumable_run import FinishedStage
    from edgewright_builder.train.epoch import Divergence, Training
    from edgewright_builder.train.loop import TrainStep


def run_finetune(
    build: Build, data: FinishedStage, student: FinishedStage, teacher: FinishedStage, search: FinishedStage
) -> FinishedStage:
    """Runs the stage, or keeps what it left. Product: `model`, a checkpoint."""
    recipe, best = build.recipe, read_best(search)
    trains = best.hyperparameters.epochs > 0  # else nothing that says how to train makes a difference
    inputs = {
        "student": student.output_digest,
        "data": data.output_digest,  # labels too, which T2 need not have seen
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
    from edgewright_builder.models.bfloat16_products import multiplies_bfloat16

    if job.recipe.finetune.precision == "bfloat16" and not multiplies_bfloat16():
        job.run.reporter.note(
            "finetune: this processor has no instructions for `finetune.precision: bfloat16`; float32 is faster here"
        )


def finetune(student: Path, training: Training, best: TrialSettings, folder: Path) -> dict[str, Any]:
    """Writes `model` (merged), `adapter` (the LoRA alone) and `curves.json`.

    Returns the KL to the teacher on held-out samples, or the cross-entropy where the labels alone teach (α = 0): how
    far such a training leads from the teacher is no figure of merit. Both are in nats per token.
    """
    from edgewright_builder.models.folder import load_model, load_tokenizer
    from edgewright_builder.quantization.rounding import temporarily_quantized
    from edgewright_builder.train.epoch import train_epoch, validation_divergence, validation_loss
    from edgewright_builder.train.loop import recorder
    from edgewright_builder.train.lora import add_lora, linear_layers, merge_lora

    data, batch_tokens, how = training.data, training.settings.batch_tokens, best.hyperparameters
    model = load_model(student)
    before = validation_divergence(model, data, batch_tokens)
    labels_before = validation_loss(model, data, how, batch_tokens) if how.alpha == 0 else None
    adapted = add_lora(model, how, training.seed, precision=training.settings.precision)
    steps: list[TrainStep] = []
    train_epoch(adapted, training, how, recorder(steps, training.on_progress))
    adapted.save_pretrained(folder / "adapter")  # type: ignore[operator]
    merged = merge_lora(adapted)
    after = validation_divergence(merged, data, batch_tokens)
    with temporarily_quantized(linear_layers(merged), bits=4, group_size=best.group_size):
        rounded = validation_divergence(merged, data, batch_tokens)
    merged.save_pretrained(folder / "model")  # type: ignore[operator]
    load_tokenizer(student).save_pretrained(folder / "model")
    write_json(
        folder / "curves.json", _curves(before, after, rounded, steps) | {"hyperparameters": asdict(how)}
    )
    figures = {"kl_before": before.mean, "kl_after": after.mean, "kl_rounded": rounded.mean}
    if labels_before is not None:
        labels_after = validation_loss(merged, data, how, batch_tokens)
        figures = {"cross_entropy_before": labels_before, "cross_entropy_after": labels_after}
    return {**figures, "tokens": steps[-1].tokens if steps else 0}


def _curves(
    before: Divergence, after: Divergence, rounded: Divergence, steps: Sequence[TrainStep]
) -> dict[str, Any]:
    return {
        "train": [{"step": step.step, "tokens": step.tokens, "loss": step.loss} for step in steps],
        "validation": [{"step": 0, "kl": before.mean}, {"step": len(steps), "kl": after.mean}],
        "validation_kl_before": before.mean,
        "validation_kl_before_standard_error": before.standard_error,
        "validation_kl_after": after.mean,
        "validation_kl_after_standard_error": after.standard_error,
        "validation_kl_rounded": rounded.mean,
        "validation_kl_rounded_standard_error": rounded.standard_error,
        "validation_tokens": after.tokens,
    }


def kl_to_teacher(finetuned: FinishedStage) -> float:
    """Returns KL(teacher ‖ fine-tuned model) on held-out samples, in nats per token."""
    curves = json.loads((finetuned.folder / "curves.json").read_text(encoding="utf-8"))
    return float(curves["validation_kl_after"])

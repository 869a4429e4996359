"""Stage 5, finetune: the search's best choice, trained on all of the training split and merged into the student."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgewright.durable import write_json
from edgewright_builder.models import load_model, load_tokenizer
from edgewright_builder.quantization.rounding import temporarily_quantized
from edgewright_builder.recipe.model import Finetune
from edgewright_builder.stages.search import Choice
from edgewright_builder.train.distill import DistillationData, TrainStep, train_epoch, validation_divergence
from edgewright_builder.train.lora import add_lora, linear_layers, merge_lora


def finetune(
    student: Path,
    data: DistillationData,
    choice: Choice,
    settings: Finetune,
    seed: int,
    folder: Path,
    on_progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Writes `model` (merged), `adapter` (the LoRA alone) and `curves.json`."""
    model = load_model(student)
    before = validation_divergence(model, data, settings.batch_tokens)
    adapted = add_lora(model, choice.hyperparameters, seed)
    steps: list[TrainStep] = []
    train_epoch(adapted, data, choice.hyperparameters, settings, seed, _record(steps, on_progress))
    adapted.save_pretrained(folder / "adapter")  # type: ignore[operator]
    merged = merge_lora(adapted)
    after = validation_divergence(merged, data, settings.batch_tokens)
    with temporarily_quantized(linear_layers(merged), bits=4, group_size=choice.group_size):
        rounded = validation_divergence(merged, data, settings.batch_tokens)
    merged.save_pretrained(folder / "model")  # type: ignore[operator]
    load_tokenizer(student).save_pretrained(folder / "model")
    curves = {
        "train": [{"step": step.step, "tokens": step.tokens, "loss": step.loss} for step in steps],
        "validation": [{"step": 0, "kl": before.mean}, {"step": steps[-1].step, "kl": after.mean}],
        "validation_kl_before": before.mean,
        "validation_kl_before_standard_error": before.standard_error,
        "validation_kl_after": after.mean,
        "validation_kl_after_standard_error": after.standard_error,
        "validation_kl_rounded": rounded.mean,
        "validation_kl_rounded_standard_error": rounded.standard_error,
        "validation_tokens": after.tokens,
        "hyperparameters": asdict(choice.hyperparameters),
    }
    write_json(folder / "curves.json", curves)
    return {
        "kl_before": before.mean,
        "kl_after": after.mean,
        "kl_rounded": rounded.mean,
        "tokens": steps[-1].tokens,
    }


def _record(
    steps: list[TrainStep], on_progress: Callable[[int, int, str], None]
) -> Callable[[TrainStep], None]:
    started = time.monotonic()

    def on_step(step: TrainStep) -> None:
        steps.append(step)
        rate = step.tokens / (time.monotonic() - started)
        on_progress(step.step, step.steps, f"steps, loss {step.loss:.3f}, {rate:.0f} tok/s")

    return on_step

"""One trial of a search: what is trained and judged, and what is written of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.durable import write_json

if TYPE_CHECKING:
    from torch import nn

    from edgewright_builder.recipe.hyperparameters import TrialSettings
    from edgewright_builder.train.epoch import Training
    from edgewright_builder.train.loop import TrainStep
    from edgewright_builder.train.trials import SearchStudy


def subset(training: Training, fraction: float) -> Training:
    """Returns the training on a share of its pairs, evenly spread, so that every topic stays."""
    data = training.data
    kept = max(1, round(fraction * len(data.train)))
    stride = len(data.train) / kept
    train = [data.train[int(position * stride)] for position in range(kept)]
    return replace(training, data=replace(data, train=train))


def trained_value(
    choice: TrialSettings,
    student: Path,
    training: Training,
    objective: str,
    on_step: Callable[[TrainStep], None],
) -> float:
    """Trains a freshly loaded student, so that trials cannot touch each other, and returns what it is judged by.

    Raises DivergedError where the training leaves no finite number.
    """
    from edgewright_builder.models.folder import load_model
    from edgewright_builder.train.epoch import train_epoch
    from edgewright_builder.train.lora import add_lora, merge_lora

    precision = training.settings.precision
    adapted = add_lora(load_model(student), choice.hyperparameters, training.seed, precision=precision)
    train_epoch(adapted, training, choice.hyperparameters, on_step)
    return _judge(merge_lora(adapted), training, choice, objective)


def _judge(model: nn.Module, training: Training, choice: TrialSettings, objective: str) -> float:
    """Returns what the search minimises. Raises DivergedError where that is no finite number."""
    from edgewright_builder.quantization.rounding import temporarily_quantized
    from edgewright_builder.train.epoch import validation_divergence, validation_loss
    from edgewright_builder.train.loop import DivergedError
    from edgewright_builder.train.lora import linear_layers

    data, batch_tokens = training.data, training.settings.batch_tokens
    if objective == "paper":
        value = validation_loss(model, data, choice.hyperparameters, batch_tokens)
    else:
        with temporarily_quantized(linear_layers(model), bits=4, group_size=choice.group_size):
            value = validation_divergence(model, data, batch_tokens).mean
    if not math.isfinite(value):
        raise DivergedError(f"The objective is {value} after training; lower the learning rate.")
    return value


def write_search(study: SearchStudy, folder: Path) -> dict[str, Any]:
    """Writes `trials.json` and `best.json`; returns the summary. Raises RefusedError if every trial diverged."""
    write_json(folder / "trials.json", study.rows())
    trial, best = study.best()
    write_json(
        folder / "best.json", {**asdict(best), "value": trial.value, "objective": study.settings.objective}
    )
    return {"trials": study.settings.trials, "best": trial.value, **trial.params}

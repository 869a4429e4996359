"""The stage `search`: Bayesian search over the paper's Table 1, judged by what ships.

The study lives in `study.db` (open it with `optuna-dashboard sqlite:///RUN/search/study.db`). A killed search goes on
at the trial it was in.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.durable import write_json
from edgewright_builder.recipe.hyperparameters import Hyperparameters, TrialSettings
from edgewright_builder.stages.teacher import training_of

if TYPE_CHECKING:
    from torch import nn

    from edgewright_builder.recipe.model import SearchSettings
    from edgewright_builder.run.build import Build
    from edgewright_builder.run.progress import OnProgress
    from edgewright_builder.run.run import FinishedStage
    from edgewright_builder.train.epoch import DistillationData, Training
    from edgewright_builder.train.loop import TrainStep
    from edgewright_builder.train.study import SearchStudy


def run_search(
    build: Build, data: FinishedStage, student: FinishedStage, teacher: FinishedStage
) -> FinishedStage:
    """Runs the stage, or keeps what it left. Product: `best.json`, which `read_best` reads. Resumable.

    A recipe that fixes its hyperparameters has nothing to search: then `best.json` holds those.
    """
    recipe = build.recipe
    if recipe.hyperparameters is not None:
        return _keep_fixed(build, recipe.hyperparameters.values)
    group_sizes = [plan.configuration.group_size for plan in build.plans]
    inputs = {
        "student": student.output_digest,
        "teacher": teacher.output_digest,
        "search": recipe.search.model_dump(),
        "finetune": recipe.finetune.model_dump(exclude_none=True),
        "group_sizes": group_sizes,
        "seed": recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        training = training_of(build.distillation, data, teacher)
        return search(student.folder / "model", training, recipe.search, group_sizes, folder)

    return build.run.stage("search", inputs, work, products=("best.json",), resumable=True)


def _keep_fixed(build: Build, fixed: Hyperparameters) -> FinishedStage:
    choice = TrialSettings(fixed, build.plan.configuration.group_size)

    def work(folder: Path) -> dict[str, Any]:
        write_json(folder / "best.json", asdict(choice))
        return {"fixed": asdict(fixed)}

    return build.run.stage("search", {"fixed": asdict(choice)}, work, products=("best.json",))


def read_best(search: FinishedStage) -> TrialSettings:
    """Returns what the search found best."""
    best = json.loads((search.folder / "best.json").read_text(encoding="utf-8"))
    return TrialSettings(Hyperparameters(**best["hyperparameters"]), best["group_size"])


def search(
    student: Path, training: Training, settings: SearchSettings, group_sizes: Sequence[int], folder: Path
) -> dict[str, Any]:
    """Runs the trials that are still missing; writes `trials.json` and `best.json`.

    `group_sizes` are those whose predicted peak meets the budget. Raises RefusedError if every trial diverges.
    """
    from edgewright_builder.train.study import open_study

    study = open_study(folder / "study.db", settings, group_sizes, training.seed)
    subset = replace(training, data=_subset(training, settings.train_fraction))
    while (done := study.finished()) < settings.trials:
        _run_trial(study, student, subset, _trial_progress(training.on_progress, done, settings))
        write_json(folder / "trials.json", study.rows())
    write_json(folder / "trials.json", study.rows())
    trial, best = study.best()
    found = {**asdict(best), "value": trial.value, "objective": settings.objective}
    write_json(folder / "best.json", found)
    return {"trials": settings.trials, "best": trial.value, **trial.params}


def _subset(training: Training, fraction: float) -> DistillationData:
    data = training.data
    kept = max(1, round(fraction * len(data.train)))
    stride = len(data.train) / kept  # evenly spread, so that every topic stays
    return replace(data, train=[data.train[int(position * stride)] for position in range(kept)])


def _run_trial(
    study: SearchStudy, student: Path, training: Training, on_step: Callable[[TrainStep], None]
) -> None:
    """Trains and judges one trial on a freshly loaded student, so that trials cannot touch each other."""
    from edgewright_builder.models import load_model
    from edgewright_builder.train.epoch import train_epoch
    from edgewright_builder.train.loop import DivergedError
    from edgewright_builder.train.lora import add_lora, merge_lora

    trial, choice = study.ask()
    started = time.monotonic()
    adapted = add_lora(load_model(student), choice.hyperparameters, training.seed)
    try:
        train_epoch(adapted, training, choice.hyperparameters, on_step)
        value = _judge(merge_lora(adapted), training, choice, study.settings.objective)
    except DivergedError as error:
        study.diverge(trial, str(error))
        return
    study.complete(trial, value, time.monotonic() - started)


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


def _trial_progress(
    on_progress: OnProgress, done: int, settings: SearchSettings
) -> Callable[[TrainStep], None]:
    started = time.monotonic()

    def on_step(step: TrainStep) -> None:
        rate = step.tokens / (time.monotonic() - started)
        text = f"steps, trial {done + 1} of {settings.trials}, loss {step.loss:.3f}, {rate:.0f} tok/s"
        on_progress(done * step.steps + step.step, settings.trials * step.steps, text)

    return on_step

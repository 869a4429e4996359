"""Stage 4, search: Bayesian search over the paper's Table 1, judged by what ships.

The study lives in `study.db` (open it with `optuna-dashboard sqlite:///RUN/search/study.db`). A killed search goes on
at the trial it was in: a trial's suggestion depends only on the seed and on the trials completed before it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.samplers import BaseSampler, GPSampler, PartialFixedSampler
from optuna.trial import FrozenTrial, Trial, TrialState
from torch import nn

from edgewright.durable import write_json
from edgewright.errors import RefusedError
from edgewright_builder.fit.bound import PeakBound
from edgewright_builder.models import load_model
from edgewright_builder.quantization.rounding import temporarily_quantized
from edgewright_builder.recipe.model import Finetune, Search, SearchSpace
from edgewright_builder.train.distill import (
    DistillationData,
    DivergedError,
    TrainStep,
    train_epoch,
    validation_divergence,
    validation_loss,
)
from edgewright_builder.train.lora import Hyperparameters, add_lora, linear_layers, merge_lora

RANK_STEP = 8
STUDY_NAME = "edgewright"

# Known-good starting points, tried first where the space admits them: one per optimizer.
BASELINES: tuple[dict[str, Any], ...] = (
    {"optimizer": "adam", "learning_rate": 5e-4, "weight_decay": 0.0, "lora_rank": 32, "lora_scale": 2.0,
     "temperature": 1.0, "alpha": 1.0},
    {"optimizer": "muon", "learning_rate": 1e-3, "weight_decay": 0.0, "lora_rank": 32, "lora_scale": 2.0,
     "temperature": 1.0, "alpha": 1.0},
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What a trial tries: how to train, and the group size its result is rounded with."""

    hyperparameters: Hyperparameters
    group_size: int


@dataclass(frozen=True)
class Feasibility:
    """h(m̂) of one group size against the budget."""

    group_size: int
    bound: PeakBound


def search(
    student: Path,
    data: DistillationData,
    settings: Search,
    finetune: Finetune,
    candidates: Sequence[Feasibility],
    seed: int,
    folder: Path,
    on_progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Runs the trials that are still missing; writes `trials.json` and `best.json`.

    `candidates` are the group sizes to choose from with their predicted peak; those over budget are never tried.
    Raises RefusedError when none is left.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    feasible = [candidate for candidate in candidates if candidate.bound.fits]
    if not feasible:
        raise RefusedError(
            f"No group size of {[c.group_size for c in candidates]} keeps h(m̂) within the budget."
        )
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'study.db'}",
        study_name=STUDY_NAME,
        direction="minimize",
        load_if_exists=True,
    )
    _fail_interrupted(study)
    subset = _subset(data, settings.train_fraction)
    while (done := _finished(study)) < settings.trials:
        study.sampler = _sampler(settings, seed, done)
        trial = study.ask()
        choice = _suggest(trial, settings.space, [candidate.group_size for candidate in feasible])
        _require_feasible(choice.group_size, feasible)
        _run_trial(
            study,
            trial,
            choice,
            student,
            subset,
            settings,
            finetune,
            seed,
            _trial_progress(on_progress, done, settings),
        )
        _write_trials(study, settings, folder)
    _write_trials(study, settings, folder)
    best = _best_trial(study)
    choice = _choice(best.params, feasible[0].group_size)
    write_json(folder / "best.json", {**asdict(choice), "value": best.value, "objective": settings.objective})
    return {"trials": settings.trials, "best": best.value, **best.params}


def read_best(folder: Path) -> Choice:
    """The choice in `best.json`."""
    best = json.loads((folder / "best.json").read_text(encoding="utf-8"))
    return Choice(Hyperparameters(**best["hyperparameters"]), best["group_size"])


def _finished(study: optuna.Study) -> int:
    """How many trials were judged, or diverged; one that was killed counts for nothing."""
    return sum(
        trial.state == TrialState.COMPLETE or "diverged" in trial.user_attrs for trial in study.get_trials()
    )


def _best_trial(study: optuna.Study) -> FrozenTrial:
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    if not complete:
        raise RefusedError("Every trial diverged; lower `search.space.learning_rate`.")
    return min(complete, key=lambda trial: (cast("float", trial.value), trial.number))


def _fail_interrupted(study: optuna.Study) -> None:
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def _sampler(settings: Search, seed: int, done: int) -> BaseSampler:
    """A fresh sampler for trial `done`, so that a resumed search suggests what an undisturbed one would."""
    gaussian_process = GPSampler(
        seed=seed + done, n_startup_trials=settings.startup_trials, deterministic_objective=True
    )
    baselines = [fixed for fixed in BASELINES if _admits(settings.space, fixed)]
    if done < len(baselines) and settings.trials > len(baselines):
        return PartialFixedSampler(baselines[done], gaussian_process)
    return gaussian_process


def _admits(space: SearchSpace, fixed: dict[str, Any]) -> bool:
    ranges = {key: getattr(space, key) for key in fixed if key != "optimizer"}
    inside = all(bounds.low <= fixed[key] <= bounds.high for key, bounds in ranges.items())
    return inside and fixed["optimizer"] in space.optimizer


def _suggest(trial: Trial, space: SearchSpace, group_sizes: Sequence[int]) -> Choice:
    trial.suggest_categorical("optimizer", list(space.optimizer))
    trial.suggest_float("learning_rate", space.learning_rate.low, space.learning_rate.high, log=True)
    trial.suggest_float("weight_decay", space.weight_decay.low, space.weight_decay.high)
    trial.suggest_int("lora_rank", int(space.lora_rank.low), int(space.lora_rank.high), step=RANK_STEP)
    trial.suggest_float("lora_scale", space.lora_scale.low, space.lora_scale.high)
    trial.suggest_float("temperature", space.temperature.low, space.temperature.high)
    trial.suggest_float("alpha", space.alpha.low, space.alpha.high)
    if len(group_sizes) > 1:
        trial.suggest_categorical("group_size", list(group_sizes))
    return _choice(trial.params, group_sizes[0])


def _choice(params: dict[str, Any], only_group_size: int) -> Choice:
    """A trial's parameters, the group size being one where there is no choice of it."""
    values = {key: value for key, value in params.items() if key != "group_size"}
    return Choice(Hyperparameters(**values), params.get("group_size", only_group_size))


def _require_feasible(group_size: int, feasible: Sequence[Feasibility]) -> None:
    """h(m̂) ≤ Memory_budget, before anything is trained."""
    if group_size not in {candidate.group_size for candidate in feasible}:
        raise RefusedError(f"Group size {group_size} does not keep h(m̂) within the budget.")


def _subset(data: DistillationData, fraction: float) -> DistillationData:
    kept = max(1, round(fraction * len(data.train)))
    stride = len(data.train) / kept  # evenly spread, so that every topic stays
    train = [data.train[int(position * stride)] for position in range(kept)]
    return DistillationData(
        data.samples, train, data.validation, data.teacher_hidden, data.teacher_head, data.pad_token
    )


def _run_trial(
    study: optuna.Study,
    trial: Trial,
    choice: Choice,
    student: Path,
    data: DistillationData,
    settings: Search,
    finetune: Finetune,
    seed: int,
    on_step: Callable[[TrainStep], None],
) -> None:
    """Trains and judges one choice on a freshly loaded student, so that trials cannot touch each other."""
    started = time.monotonic()
    adapted = add_lora(load_model(student), choice.hyperparameters, seed)
    try:
        train_epoch(adapted, data, choice.hyperparameters, finetune, seed, on_step)
        value = _judge(merge_lora(adapted), data, choice, settings, finetune)
    except DivergedError as error:
        trial.set_user_attr("diverged", str(error))
        study.tell(trial, state=TrialState.FAIL)
        return
    trial.set_user_attr("seconds", round(time.monotonic() - started, 1))
    study.tell(trial, value)


def _judge(
    model: nn.Module, data: DistillationData, choice: Choice, settings: Search, finetune: Finetune
) -> float:
    if settings.objective == "paper":
        value = validation_loss(model, data, choice.hyperparameters, finetune.batch_tokens)
    else:
        with temporarily_quantized(linear_layers(model), bits=4, group_size=choice.group_size):
            value = validation_divergence(model, data, finetune.batch_tokens).mean
    if not math.isfinite(value):
        raise DivergedError(f"The objective is {value} after training.")
    return value


def _trial_progress(
    on_progress: Callable[[int, int, str], None], done: int, settings: Search
) -> Callable[[TrainStep], None]:
    started = time.monotonic()

    def on_step(step: TrainStep) -> None:
        rate = step.tokens / (time.monotonic() - started)
        text = f"steps, trial {done + 1} of {settings.trials}, loss {step.loss:.3f}, {rate:.0f} tok/s"
        on_progress(done * step.steps + step.step, settings.trials * step.steps, text)

    return on_step


def _state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return "complete"
    return "diverged" if "diverged" in trial.user_attrs else "interrupted"


def _write_trials(study: optuna.Study, settings: Search, folder: Path) -> None:
    rows = [
        {
            "number": trial.number,
            "state": _state(trial),
            "value": trial.value,
            "params": trial.params,
            "seconds": trial.user_attrs.get("seconds"),
            "objective": settings.objective,
        }
        for trial in study.get_trials()
    ]
    write_json(folder / "trials.json", rows)

"""The trials of a search: what was tried, and what to try next, kept in an Optuna study.

A trial's suggestion depends only on the seed and on the trials completed before it, so a search that was killed goes
on as an undisturbed one would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.samplers import BaseSampler, GPSampler, PartialFixedSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from edgewright.errors import RefusedError
from edgewright_builder.recipe.hyperparameters import Hyperparameters, SearchSpace, TrialSettings
from edgewright_builder.recipe.model_recipe import SearchSettings

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
class SearchStudy:
    """A study and the recipe's settings for it."""

    study: optuna.Study
    settings: SearchSettings
    group_sizes: Sequence[int]
    seed: int

    def finished(self) -> int:
        """Returns how many trials were judged or diverged; one that was killed does not count."""
        return sum(
            trial.state == TrialState.COMPLETE or "diverged" in trial.user_attrs
            for trial in self.study.get_trials()
        )

    def ask(self) -> tuple[Trial, TrialSettings]:
        """Begins the next trial, with a fresh sampler seeded by its number."""
        self.study.sampler = _sampler(self.settings, self.seed, self.finished())
        trial = self.study.ask()
        return trial, self.suggest(trial)

    def complete(self, trial: Trial, value: float, seconds: float) -> None:
        """Records what the trial was judged to be worth."""
        trial.set_user_attr("seconds", round(seconds, 1))
        self.study.tell(trial, value)

    def diverge(self, trial: Trial, reason: str) -> None:
        """Records that the trial's training did not end in finite numbers."""
        trial.set_user_attr("diverged", reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def best(self) -> tuple[FrozenTrial, TrialSettings]:
        """Returns the trial of the least value, the earliest of equals. Raises RefusedError if every trial diverged."""
        complete = self.study.get_trials(states=(TrialState.COMPLETE,))
        if not complete:
            raise RefusedError("Every trial diverged; lower `search.space.learning_rate`.")
        trial = min(complete, key=lambda trial: (cast("float", trial.value), trial.number))
        return trial, self._settings_of(trial.params)

    def rows(self) -> list[dict[str, Any]]:
        """Returns every trial as `trials.json` holds it."""
        return [
            {
                "number": trial.number,
                "state": _state(trial),
                "value": trial.value,
                "params": trial.params,
                "seconds": trial.user_attrs.get("seconds"),
                "objective": self.settings.objective,
            }
            for trial in self.study.get_trials()
            if trial.state != TrialState.PRUNED
            or "diverged" in trial.user_attrs  # else a worker came too late
        ]

    def suggest(self, trial: Trial) -> TrialSettings:
        """Returns what the trial is to try, drawn from the recipe's space."""
        _suggest(trial, self.settings.space, self.group_sizes)
        return self._settings_of(trial.params)

    def _settings_of(self, params: dict[str, Any]) -> TrialSettings:
        """Returns a trial's settings; the group size is not among its parameters where there is no choice of it."""
        values = {key: value for key, value in params.items() if key != "group_size"}
        return TrialSettings(Hyperparameters(**values), params.get("group_size", self.group_sizes[0]))


def open_study(path: Path, settings: SearchSettings, group_sizes: Sequence[int], seed: int) -> SearchStudy:
    """Opens or makes the study in the database at `path`; marks trials that a killed search left running as failed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=f"sqlite:///{path}", study_name=STUDY_NAME, direction="minimize", load_if_exists=True
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return SearchStudy(study, settings, group_sizes, seed)


def _sampler(settings: SearchSettings, seed: int, done: int) -> BaseSampler:
    gaussian_process = GPSampler(
        seed=seed + done, n_startup_trials=settings.startup_trials, deterministic_objective=True
    )
    baselines = baselines_of(settings)
    if done < len(baselines):
        return PartialFixedSampler(baselines[done], gaussian_process)
    return gaussian_process


def baselines_of(settings: SearchSettings) -> list[dict[str, Any]]:
    """Returns the starting points that the space admits, tried first where there are more trials than them."""
    admitted = [fixed for fixed in BASELINES if _admits(settings.space, fixed)]
    return admitted if settings.trials > len(admitted) else []


def shared_sampler(settings: SearchSettings) -> BaseSampler:
    """Returns the sampler of one of several workers. Its seed is its own: two of one seed would try the same."""
    return GPSampler(n_startup_trials=settings.startup_trials, deterministic_objective=True)


def _admits(space: SearchSpace, fixed: dict[str, Any]) -> bool:
    ranges = {key: getattr(space, key) for key in fixed if key != "optimizer"}
    inside = all(bounds.low <= fixed[key] <= bounds.high for key, bounds in ranges.items())
    return inside and fixed["optimizer"] in space.optimizer


def _suggest(trial: Trial, space: SearchSpace, group_sizes: Sequence[int]) -> None:
    trial.suggest_categorical("optimizer", list(space.optimizer))
    trial.suggest_float("learning_rate", space.learning_rate.low, space.learning_rate.high, log=True)
    trial.suggest_float("weight_decay", space.weight_decay.low, space.weight_decay.high)
    trial.suggest_int("lora_rank", int(space.lora_rank.low), int(space.lora_rank.high), step=RANK_STEP)
    trial.suggest_float("lora_scale", space.lora_scale.low, space.lora_scale.high)
    trial.suggest_float("temperature", space.temperature.low, space.temperature.high)
    trial.suggest_float("alpha", space.alpha.low, space.alpha.high)
    if len(group_sizes) > 1:
        trial.suggest_categorical("group_size", list(group_sizes))


def _state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return "complete"
    return "diverged" if "diverged" in trial.user_attrs else "interrupted"

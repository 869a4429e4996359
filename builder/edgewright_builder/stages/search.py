"""The stage `search`: Bayesian search over the paper's Table 1, judged by what ships.

The study lives in `study.db` (open it with `optuna-dashboard sqlite:///RUN/search/study.db`). A killed search goes on
at the trial it was in.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.durable import write_json
from edgewright.errors import InputError
from edgewright_builder.recipe.hyperparameters import Hyperparameters, TrialSettings
from edgewright_builder.stages.search_trials import subset, trained_value, write_search
from edgewright_builder.stages.shared_search import search_together
from edgewright_builder.stages.teacher import training_of

if TYPE_CHECKING:
    from edgewright_builder.recipe.model_recipe import SearchSettings
    from edgewright_builder.run.build_definition import Build
    from edgewright_builder.run.progress import OnProgress
    from edgewright_builder.run.resumable_run import FinishedStage
    from edgewright_builder.train.epoch import Training
    from edgewright_builder.train.loop import TrainStep
    from edgewright_builder.train.trials import SearchStudy


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
        "data": data.output_digest,  # labels too, which T2 need not have seen
        "teacher": teacher.output_digest,
        "search": recipe.search.deciding(),
        "finetune": recipe.finetune.model_dump(exclude_none=True),
        "group_sizes": group_sizes,
        "seed": recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        if recipe.search.is_shared:
            stages = {"data": data, "student": student, "teacher": teacher}
            return search_together(build, stages, group_sizes, folder)
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
    """Returns what the search found best. Raises InputError where its file is damaged."""
    path = search.folder / "best.json"
    try:
        best = json.loads(path.read_text(encoding="utf-8"))
        return TrialSettings(Hyperparameters(**best["hyperparameters"]), best["group_size"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); delete {search.folder} to search again.") from None


def search(
    student: Path, training: Training, settings: SearchSettings, group_sizes: Sequence[int], folder: Path
) -> dict[str, Any]:
    """Runs the trials that are still missing; writes `trials.json` and `best.json`.

    `group_sizes` are those whose predicted peak meets the budget. Raises RefusedError if every trial diverges.
    """
    from edgewright_builder.train.trials import open_study

    study = open_study(folder / "study.db", settings, group_sizes, training.seed)
    job = subset(training, settings.train_fraction)
    while (done := study.finished()) < settings.trials:
        _run_trial(study, student, job, _trial_progress(training.on_progress, done, settings))
        write_json(folder / "trials.json", study.rows())
    return write_search(study, folder)


def _run_trial(
    study: SearchStudy, student: Path, training: Training, on_step: Callable[[TrainStep], None]
) -> None:
    from edgewright_builder.train.loop import DivergedError

    trial, choice = study.ask()
    started = time.monotonic()
    try:
        value = trained_value(choice, student, training, study.settings.objective, on_step)
    except DivergedError as error:
        study.diverge(trial, str(error))
        return
    study.complete(trial, value, time.monotonic() - started)


def _trial_progress(
    on_progress: OnProgress, done: int, settings: SearchSettings
) -> Callable[[TrainStep], None]:
    started = time.monotonic()

    def on_step(step: TrainStep) -> None:
        rate = step.tokens / (time.monotonic() - started)
        text = f"steps, trial {done + 1} of {settings.trials}, loss {step.loss:.3f}, {rate:.0f} tok/s"
        on_progress(done * step.steps + step.step, settings.trials * step.steps, text)

    return on_step

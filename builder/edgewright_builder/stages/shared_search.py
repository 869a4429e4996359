"""The search by several processes on any number of hosts: each takes trials from one Optuna storage.

Hosts share a search where they run the same recipe on the same data. What a trial tries depends on what is known when
it begins, so the order in which trials end matters, and a shared search is not repeatable.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.digests import digest_of
from edgewright.durable import write_json
from edgewright.errors import OutsideError
from edgewright_builder.stages.search_trials import subset, trained_value, write_search
from edgewright_builder.stages.teacher import training_of
from edgewright_builder.teacher_cache.source import source_of

if TYPE_CHECKING:
    from optuna.trial import Trial

    from edgewright_builder.recipe.model_recipe import Recipe
    from edgewright_builder.run.build_definition import Build
    from edgewright_builder.run.resumable_run import FinishedStage
    from edgewright_builder.run.work_queue import WorkQueue
    from edgewright_builder.train.epoch import Training
    from edgewright_builder.train.loop import TrainStep


@dataclass(frozen=True)
class SearchJob:
    """What a worker of this host needs, as `job.json` holds it."""

    recipe: dict[str, Any]
    run: str  # folders: the run's, and those of the stages before
    data: str
    student: str
    teacher: str
    group_sizes: list[int]
    storage: str  # the address of the queue
    name: str  # of the queue


def search_together(
    build: Build, stages: Mapping[str, FinishedStage], group_sizes: Sequence[int], folder: Path
) -> dict[str, Any]:
    """Runs the trials that are still missing with this host's workers; writes `trials.json` and `best.json`.

    `stages` are those before. Raises RefusedError if every trial diverges, OutsideError if trials fail otherwise.
    """
    from edgewright_builder.run.work_queue import opened_queue
    from edgewright_builder.run.workers import run_workers
    from edgewright_builder.train.trials import SearchStudy, baselines_of

    job, settings = _job(build, stages, group_sizes, folder), build.recipe.search
    with opened_queue(job.storage, job.name) as queue:
        if settings.storage is None:
            queue.give_back()
        names = [f"trial {number + 1}" for number in range(settings.trials)]
        queue.put(names, dict(zip(names, baselines_of(settings), strict=False)))
        if settings.workers == 1:
            training = training_of(build.distillation, stages["data"], stages["teacher"])
            take_trials(queue, Path(job.student), training, build.recipe, job.group_sizes)
        else:
            path = folder / "job.json"
            write_json(path, asdict(job))
            module = "edgewright_builder.stages.search_worker"
            run_workers([sys.executable, "-m", module, str(path)], settings.workers, queue)
        _require_all(queue)
        return write_search(SearchStudy(queue.study, settings, group_sizes, build.recipe.seed), folder)


def _job(
    build: Build, stages: Mapping[str, FinishedStage], group_sizes: Sequence[int], folder: Path
) -> SearchJob:
    from edgewright_builder.run.optuna_storage import journal_url

    recipe = build.recipe
    identity = {
        "data": stages["data"].output_digest,
        "student": stages["student"].output_digest,
        "teacher": build.distillation.teacher_digest,
        **source_of(build.distillation).inputs,
        "search": recipe.search.deciding(),
        "finetune": recipe.finetune.model_dump(exclude_none=True),
        "group_sizes": list(group_sizes),
        "seed": recipe.seed,
    }
    return SearchJob(
        recipe.model_dump(mode="json"),
        str(build.run.folder.resolve()),
        str(stages["data"].folder.resolve()),
        str((stages["student"].folder / "model").resolve()),
        str(stages["teacher"].folder.resolve()),
        list(group_sizes),
        recipe.search.storage or journal_url(folder / "study.journal"),
        f"search-{recipe.name}-{digest_of(identity)[:16]}",
    )


def take_trials(
    queue: WorkQueue,
    student: Path,
    training: Training,
    recipe: Recipe,
    group_sizes: Sequence[int],
    on_trial: Callable[[str], None] = lambda _: None,
) -> None:
    """Takes trials until none is left, here or with another worker; `on_trial` is told of each in a sentence."""
    import optuna

    from edgewright_builder.train.loop import DivergedError
    from edgewright_builder.train.trials import SearchStudy, shared_sampler

    study = SearchStudy(queue.study, recipe.search, group_sizes, training.seed)
    queue.study.sampler = shared_sampler(recipe.search)
    job = subset(training, recipe.search.train_fraction)

    def run(trial: Trial, name: str) -> tuple[float, dict[str, Any]]:
        started = time.monotonic()
        try:
            value = trained_value(
                study.suggest(trial), student, job, recipe.search.objective, _shown(job, name)
            )
        except DivergedError as error:
            trial.set_user_attr("diverged", str(error))
            on_trial(f"{name}: diverged")
            raise optuna.TrialPruned from None
        seconds = round(time.monotonic() - started, 1)
        trial.set_user_attr("seconds", seconds)
        on_trial(f"{name}: {value:.4f} after {seconds:.0f} s")
        return value, {"seconds": seconds}

    queue.work_trials(run)


def _shown(training: Training, name: str) -> Callable[[TrainStep], None]:
    def on_step(step: TrainStep) -> None:
        training.on_progress(step.step, step.steps, f"steps of {name}, loss {step.loss:.3f}")

    return on_step


def _require_all(queue: WorkQueue) -> None:
    if faults := queue.faults():
        name, fault = next(iter(faults.items()))
        raise OutsideError(
            f"{len(faults)} trials of the search failed, the first is {name}: {fault} Run the same command again with "
            "--resume to try these again."
        )

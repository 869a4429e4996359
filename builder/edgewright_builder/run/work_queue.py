"""A queue of work, such as a study's cells or a search's trials, which workers on any number of hosts share.

An item is a trial of an Optuna study, and Optuna hands each waiting trial to one worker only. On one host the storage
is a journal. Across hosts it is a database, whose heartbeat hands a killed worker's item out again.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from edgewright import __version__
from edgewright.errors import EdgewrightError, InputError
from edgewright_builder.run.optuna_storage import (
    ATTEMPTS_MAX,
    SILENT_SECONDS_MAX,
    shared_storage,
    storage_faults,
)

POLL_SECONDS = 2.0
ALIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
ITEM, RESULT, FAULT, WORKER, DEATHS = "item", "result", "fault", "worker", "deaths"
DOUBLE = "double"  # marks what another host put at the same moment: it says nothing about its item


@dataclass(frozen=True)
class WorkQueue:
    """The items of one study and what came of them."""

    study: optuna.Study
    storage: BaseStorage

    def put(self, names: Iterable[str], params: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Adds the items that are neither queued nor done; those that failed are queued again.

        `params` are values that an item's trial is to try.
        """
        alive = {trial.user_attrs.get(ITEM) for trial in self._trials(*ALIVE, TrialState.PRUNED)}
        for name in names:
            if name not in alive:
                self.study.enqueue_trial(dict((params or {}).get(name, {})), user_attrs={ITEM: name})

    def give_back(self, worker: int | None = None) -> None:
        """Gives the items back that a dead worker of this host left; without one, all that are under way.

        They are the next to be taken. One whose workers died three times is left as failed.
        """
        for trial in self._trials(TrialState.RUNNING):
            if worker is None or trial.user_attrs.get(WORKER) == worker:
                self._give_back(trial)

    def _give_back(self, trial: FrozenTrial) -> None:
        deaths = trial.user_attrs.get(DEATHS, 0) + 1
        if deaths >= ATTEMPTS_MAX:
            self.study.tell(trial.number, state=TrialState.FAIL)
            return
        place = self.storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)
        self.storage.set_trial_user_attr(place, DEATHS, deaths)
        self.storage.set_trial_state_values(place, TrialState.WAITING)

    def work(self, run: Callable[[str], Mapping[str, Any]], *, seconds_max: float = math.inf) -> None:
        """Takes items until none is left, here or with another worker; `run` returns an item's result.

        After `seconds_max` it takes no new one.
        """
        self.work_trials(lambda _, name: (0.0, run(name)), seconds_max=seconds_max)

    def work_trials(
        self, run: Callable[[Trial, str], tuple[float, Mapping[str, Any]]], *, seconds_max: float = math.inf
    ) -> None:
        """Does the same for items with a value; `run` suggests a trial's parameters and returns value and result.

        An item whose `run` raises optuna.TrialPruned is done without a value.
        """
        end = time.monotonic() + seconds_max

        def objective(trial: Trial) -> float:
            if ITEM not in trial.user_attrs:
                raise optuna.TrialPruned  # another worker took the last one first
            if self._is_double(trial):
                trial.set_user_attr(DOUBLE, True)
                raise optuna.TrialPruned
            trial.set_user_attr(WORKER, os.getpid())
            try:
                value, result = run(trial, trial.user_attrs[ITEM])
            except EdgewrightError as error:
                trial.set_user_attr(FAULT, str(error))
                raise
            trial.set_user_attr(RESULT, dict(result))
            return value

        with storage_faults():
            while time.monotonic() < end and self._is_open():
                if self._trials(TrialState.WAITING):
                    self.study.optimize(objective, n_trials=1, catch=(EdgewrightError,))
                else:
                    time.sleep(POLL_SECONDS)

    def results(self) -> dict[str, dict[str, Any]]:
        """Returns each finished item's result."""
        with storage_faults():
            return {trial.user_attrs[ITEM]: trial.user_attrs[RESULT] for trial in self._done()}

    def faults(self) -> dict[str, str]:
        """Returns of each item that failed and was not finished since what was wrong."""
        done = {trial.user_attrs[ITEM] for trial in self._trials(TrialState.COMPLETE, TrialState.PRUNED)}
        failed = self._trials(TrialState.FAIL)
        faults = {trial.user_attrs[ITEM]: trial.user_attrs.get(FAULT, "its workers died") for trial in failed}
        return {name: fault for name, fault in faults.items() if name not in done}

    def _is_double(self, trial: Trial) -> bool:
        """Whether an earlier trial is alive that holds the same: two hosts that begin at once both put every item."""
        alive = self._trials(*ALIVE)
        return any(
            other.number < trial.number and other.user_attrs[ITEM] == trial.user_attrs[ITEM]
            for other in alive
        )

    @property
    def _study_id(self) -> int:
        return self.storage.get_study_id_from_name(self.study.study_name)

    def _is_open(self) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study)
        return bool(self._trials(TrialState.WAITING, TrialState.RUNNING))

    def _done(self) -> list[FrozenTrial]:
        return [trial for trial in self._trials(TrialState.COMPLETE) if RESULT in trial.user_attrs]

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Returns the trials of items that are in one of `states`, without doubles."""
        trials = self.study.get_trials(states=states)
        return [trial for trial in trials if ITEM in trial.user_attrs and DOUBLE not in trial.user_attrs]


@contextmanager
def opened_queue(url: str, name: str, *, silent_seconds: int = SILENT_SECONDS_MAX) -> Iterator[WorkQueue]:
    """Opens or makes the study `name` in the storage at `url`, and closes its connections at the end.

    Raises InputError for an address that no storage has and for a study of another version of Edgewright, OutsideError
    where the storage can't be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with storage_faults(url), shared_storage(url, silent_seconds) as storage:
        study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
        _require_version(study, name)
        yield WorkQueue(study, storage)


def _require_version(study: optuna.Study, name: str) -> None:
    begun_by = study.user_attrs.get("edgewright")
    if begun_by is None:
        study.set_user_attr("edgewright", __version__)
    elif begun_by != __version__:
        raise InputError(
            f"The study `{name}` was begun by Edgewright {begun_by}, this is {__version__}: their figures must not be "
            f"mixed. Install edgewright=={begun_by}, or begin a study of another name."
        )

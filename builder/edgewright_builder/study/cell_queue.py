"""The queue of a study's cells: an Optuna storage, which workers on any number of hosts share.

A cell is a trial without parameters, and Optuna hands each waiting trial to one worker only. On one host the storage is
a journal in the study's folder. Across hosts it is a database, whose heartbeat hands a killed worker's cell out again.
SQLite is refused: it has no row locks, and Optuna 5.0 gave one trial to two workers there.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna.storages import (
    BaseStorage,
    GrpcStorageProxy,
    JournalStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
)
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from edgewright import __version__
from edgewright.errors import EdgewrightError, InputError, OutsideError

HEARTBEAT_SECONDS = 15
SILENT_SECONDS_MAX = 120  # without a heartbeat a worker counts as dead
ATTEMPTS_MAX = 3  # of a cell whose workers died
POLL_SECONDS = 2.0
JOURNAL = "journal"
CELL, RESULT, FAULT, WORKER, DEATHS = "cell", "result", "fault", "worker", "deaths"


@dataclass(frozen=True)
class CellQueue:
    """The cells of one study and what came of them."""

    study: optuna.Study
    storage: BaseStorage

    def put(self, names: Iterable[str]) -> None:
        """Adds the cells that are neither queued nor done; those that failed are queued again."""
        alive = {
            trial.user_attrs.get(CELL)
            for trial in self._trials(TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
        }
        for name in names:
            if name not in alive:
                self.study.enqueue_trial({}, user_attrs={CELL: name})

    def give_back(self, worker: int | None = None) -> None:
        """Gives the cells back that a dead worker of this host left; without one, all cells that are under way.

        They are the next to be taken. A cell whose workers died three times is left as failed.
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
        """Takes cells until none is left, here or with another worker; `run` returns a cell's result.

        After `seconds_max` it takes no new one.
        """
        end = time.monotonic() + seconds_max

        def objective(trial: Trial) -> float:
            if CELL not in trial.user_attrs:
                raise optuna.TrialPruned  # another worker took the last one first
            trial.set_user_attr(WORKER, os.getpid())
            try:
                trial.set_user_attr(RESULT, dict(run(trial.user_attrs[CELL])))
            except EdgewrightError as error:
                trial.set_user_attr(FAULT, str(error))
                raise
            return 0.0

        with _storage_faults():
            while time.monotonic() < end and self._is_open():
                if self._trials(TrialState.WAITING):
                    self.study.optimize(objective, n_trials=1, catch=(EdgewrightError,))
                else:
                    time.sleep(POLL_SECONDS)

    def results(self) -> dict[str, dict[str, Any]]:
        """Returns each finished cell's result."""
        with _storage_faults():
            return {trial.user_attrs[CELL]: trial.user_attrs[RESULT] for trial in self._done()}

    def faults(self) -> dict[str, str]:
        """Returns of each cell that failed and was not finished since what was wrong."""
        done = {trial.user_attrs[CELL] for trial in self._done()}
        failed = self._trials(TrialState.FAIL)
        faults = {trial.user_attrs[CELL]: trial.user_attrs.get(FAULT, "its workers died") for trial in failed}
        return {name: fault for name, fault in faults.items() if name not in done}

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
        return [trial for trial in self.study.get_trials(states=states) if CELL in trial.user_attrs]


@contextmanager
def opened_queue(url: str, name: str, *, silent_seconds: int = SILENT_SECONDS_MAX) -> Iterator[CellQueue]:
    """Opens or makes the study `name` in the storage at `url`, and closes its connections at the end.

    Raises InputError for an address that no storage has and for a study of another version of Edgewright, OutsideError
    where the storage can't be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _storage_faults(url), _storage(url, silent_seconds) as storage:
        study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
        _require_version(study, name)
        yield CellQueue(study, storage)


def _require_version(study: optuna.Study, name: str) -> None:
    begun_by = study.user_attrs.get("edgewright")
    if begun_by is None:
        study.set_user_attr("edgewright", __version__)
    elif begun_by != __version__:
        raise InputError(
            f"The study `{name}` was begun by Edgewright {begun_by}, this is {__version__}: their figures must not be "
            f"mixed. Install edgewright=={begun_by}, or begin a study of another name."
        )


def journal_url(path: Path) -> str:
    """Returns the address of a storage for the workers of one host."""
    return f"{JOURNAL}://{path.resolve()}"


@contextmanager
def _storage(url: str, silent_seconds: int) -> Iterator[BaseStorage]:
    parts = urlsplit(url)
    if parts.scheme == JOURNAL:
        yield JournalStorage(JournalFileBackend(parts.path))
    elif parts.scheme == "grpc":
        proxy = GrpcStorageProxy(host=parts.hostname or "localhost", port=parts.port or 13000)
        with closing(proxy):
            yield proxy
    else:
        database = _database(url, silent_seconds)
        try:
            yield database
        finally:
            database.remove_session()
            database.engine.dispose()


def _database(url: str, silent_seconds: int) -> RDBStorage:
    parts = urlsplit(url)
    if parts.scheme.partition("+")[0] not in ("postgresql", "mysql"):
        raise InputError(
            f"The storage {_without_password(url)} is none that workers can share; expected postgresql://…, "
            "mysql://… or grpc://HOST:PORT of Optuna's storage proxy, or no --storage for workers of this host alone."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return RDBStorage(
            url,
            heartbeat_interval=min(HEARTBEAT_SECONDS, max(1, silent_seconds // 4)),
            grace_period=silent_seconds,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=ATTEMPTS_MAX),
        )


@contextmanager
def _storage_faults(url: str = "") -> Iterator[None]:
    """Turns what a storage raises into errors of the builder."""
    import grpc
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    where = f" {_without_password(url)}" if url else ""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"The storage{where} needs a package that is not here ({error}); install the database's driver, for "
            "PostgreSQL psycopg[binary]."
        ) from None
    except (SQLAlchemyError, StorageInternalError, grpc.RpcError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise OutsideError(
            f"The storage{where} can't be used: {first_line}. Mend that and run the same command again with --resume."
        ) from None


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":…@", 1)

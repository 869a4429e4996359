"""Conducts a study on this host: queues its cells, starts workers, and writes what came of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from edgewright.durable import FileSystem, write_durably
from edgewright.errors import InputError, OutsideError
from edgewright.sizes import parse_bytes
from edgewright.yaml_files import read_mapping
from edgewright_builder.run.folder_owner import claimed, refuse_used
from edgewright_builder.run.optuna_storage import (
    SILENT_SECONDS_MAX,
    journal_url,
    shared_storage,
    storage_faults,
)
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.work_queue import WorkQueue, opened_queue
from edgewright_builder.run.workers import run_workers, threads_of
from edgewright_builder.study.cells import StudyCell, cells_of
from edgewright_builder.study.preflight import require_inputs
from edgewright_builder.study.results import write_results
from edgewright_builder.study.study_file import StudyFile, load_study
from edgewright_builder.study.worker import result_file, work, workbench_of

STUDY_FILE = "study.yaml"
JOURNAL_NAME = "cells.journal"


@dataclass(frozen=True)
class StudyOrder:
    """What is to be studied, where, and by how many workers."""

    file: Path
    folder: Path
    storage: str | None = None  # None: a journal in the folder
    workers: int = 1
    resume: bool = False
    silent_seconds: int = SILENT_SECONDS_MAX  # without a heartbeat a worker counts as dead
    seconds_max: float = math.inf  # after that no worker takes a new cell


def conduct(order: StudyOrder, console: Console) -> int:
    """Runs the cells that are not done, here and wherever else workers share the storage, and writes the tables.

    Returns how many cells are done, which are fewer than all where the time was limited.
    Raises InputError for what a cell can't read, OutsideError if cells failed; those that were finished stay.
    """
    study = load_study(order.file)
    cells = cells_of(study)
    bench = workbench_of(study, order.file, order.folder, Reporter(console))
    _require_same(order.folder, study)
    if order.storage is not None:  # before the folder is made
        with storage_faults(order.storage), shared_storage(order.storage):
            pass
    refuse_used(order.folder, resume=order.resume)
    require_inputs([cell for cell in cells if not result_file(order.folder, cell.name).exists()], bench)
    with claimed(order.folder, resume=order.resume):
        _keep_file(order, study)
        with opened_queue(_url(order), study.name, silent_seconds=order.silent_seconds) as queue:
            if order.storage is None:
                queue.give_back()
            queue.put(cell.name for cell in cells)
            console.print(_opening_line(study, cells, queue), markup=False, highlight=False, soft_wrap=True)
            try:
                if order.workers == 1:
                    work(queue, cells, bench, console, seconds_max=order.seconds_max)
                else:
                    console.print(
                        f"{order.workers} workers of {threads_of(order.workers)} threads", highlight=False
                    )
                    run_workers(_worker_command(order), order.workers, queue)
            finally:
                write_results(order.folder, cells, queue.results())
            _require_all(queue)
            if (done := _done(cells, queue)) < len(cells):
                console.print(
                    f"{done} of {len(cells)} cells are done; the same command with --resume goes on."
                )
            return done


def _worker_command(order: StudyOrder) -> list[str]:
    arguments = [str(order.file), str(order.folder), _url(order), str(order.silent_seconds)]
    module = "edgewright_builder.study.worker"
    return [sys.executable, "-m", module, *arguments, str(order.seconds_max)]


def _url(order: StudyOrder) -> str:
    return order.storage or journal_url(order.folder / JOURNAL_NAME)


def _keep_file(order: StudyOrder, study: StudyFile) -> None:
    """Keeps the study's file in its folder. Raises InputError where the folder's cells belong to another study."""
    _require_same(order.folder, study)  # again: now nobody else writes there
    write_durably(FileSystem(), order.folder / STUDY_FILE, order.file.read_bytes())


def _require_same(folder: Path, study: StudyFile) -> None:
    """Raises InputError where the folder keeps a study of another name, device or budget: no cell's name tells them."""
    kept = folder / STUDY_FILE
    if not kept.exists():
        return
    before = {"device": StudyFile.model_fields["device"].default, **read_mapping(kept, "study")}
    differing = [key for key in ("name", "device") if before.get(key) != getattr(study, key)]
    if parse_bytes(str(before.get("budget"))) != parse_bytes(study.budget):
        differing.append("budget")
    for key in differing:
        raise InputError(
            f"{folder} holds cells of a study with `{key}: {before.get(key)}`, and this one has "
            f"`{key}: {getattr(study, key)}`: their figures must not be mixed. Choose another --out."
        )


def _opening_line(study: StudyFile, cells: Sequence[StudyCell], queue: WorkQueue) -> str:
    factors = " × ".join(f"{len(levels)} {factor}" for factor, levels in study.factors.items())
    return f"{study.name}: {len(cells)} cells ({factors}), {_done(cells, queue)} of them done"


def _done(cells: Sequence[StudyCell], queue: WorkQueue) -> int:
    return len(queue.results().keys() & {cell.name for cell in cells})


def _require_all(queue: WorkQueue) -> None:
    if faults := queue.faults():
        name, fault = next(iter(faults.items()))
        raise OutsideError(
            f"{len(faults)} cells failed, the first is {name}: {fault} The others are done; run the same command again "
            "with --resume to try these again."
        )

"""Conducts a study on this host: queues its cells, starts workers, and writes what came of it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from edgewright.durable import FileSystem, write_durably
from edgewright.errors import InputError, OutsideError
from edgewright.tether import tethered
from edgewright_builder.recipe.file import read_yaml
from edgewright_builder.run.folder import claimed
from edgewright_builder.run.progress import Reporter
from edgewright_builder.study.cell_queue import SILENT_SECONDS_MAX, CellQueue, journal_url, opened_queue
from edgewright_builder.study.cells import StudyCell, cells_of
from edgewright_builder.study.results import write_results
from edgewright_builder.study.study_file import StudyFile, load_study
from edgewright_builder.study.worker import work, workbench_of

STUDY_FILE = "study.yaml"
POLL_SECONDS = 0.5
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
    Raises OutsideError if cells failed; those that were finished stay.
    """
    study = load_study(order.file)
    cells = cells_of(study)
    bench = workbench_of(study, order.folder, Reporter(console))
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
                    _run_workers(order, queue, console)
            finally:
                write_results(order.folder, cells, queue.results())
            _require_all(queue)
            if (done := _done(cells, queue)) < len(cells):
                console.print(
                    f"{done} of {len(cells)} cells are done; the same command with --resume goes on."
                )
            return done


def _url(order: StudyOrder) -> str:
    return order.storage or journal_url(order.folder / JOURNAL_NAME)


def _keep_file(order: StudyOrder, study: StudyFile) -> None:
    """Keeps the study's file in its folder. Raises InputError where the folder is another study's."""
    kept = order.folder / STUDY_FILE
    if kept.exists() and (name := read_yaml(kept).get("name")) != study.name:
        raise InputError(
            f"{order.folder} holds the study `{name}`, not `{study.name}`; choose another --out."
        )
    write_durably(FileSystem(), kept, order.file.read_bytes())


def _opening_line(study: StudyFile, cells: Sequence[StudyCell], queue: CellQueue) -> str:
    factors = " × ".join(f"{len(levels)} {factor}" for factor, levels in study.factors.items())
    return f"{study.name}: {len(cells)} cells ({factors}), {_done(cells, queue)} of them done"


def _done(cells: Sequence[StudyCell], queue: CellQueue) -> int:
    return len(queue.results().keys() & {cell.name for cell in cells})


def _run_workers(order: StudyOrder, queue: CellQueue, console: Console) -> None:
    """Starts the workers, each with its share of the processors, and waits for them."""
    threads = max(1, (os.cpu_count() or 1) // order.workers)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    arguments = [str(order.file), str(order.folder), _url(order), str(order.silent_seconds)]
    arguments.append(str(order.seconds_max))
    command = [*tethered(), sys.executable, "-m", "edgewright_builder.study.worker", *arguments]
    console.print(f"{order.workers} workers of {threads} threads", highlight=False)
    workers = [subprocess.Popen(command, env=environment) for _ in range(order.workers)]
    try:
        codes = _wait(workers, queue)
    except BaseException:  # Ctrl-C: the workers must not go on alone
        for worker in workers:
            worker.kill()
        raise
    if all(codes):
        raise OutsideError(
            f"All {order.workers} workers failed, the last with exit code {codes[-1]}; their messages are above. Mend "
            "that and run the same command again with --resume."
        )


def _wait(workers: Sequence[subprocess.Popen[bytes]], queue: CellQueue) -> list[int]:
    """Returns the workers' exit codes. What one leaves that dies is given back while others are there to take it."""
    left = list(workers)
    while left:
        for worker in [worker for worker in left if worker.poll() is not None]:
            left.remove(worker)
            if worker.returncode != 0:
                queue.give_back(worker.pid)
        time.sleep(POLL_SECONDS)
    return [worker.returncode for worker in workers]


def _require_all(queue: CellQueue) -> None:
    if faults := queue.faults():
        name, fault = next(iter(faults.items()))
        raise OutsideError(
            f"{len(faults)} cells failed, the first is {name}: {fault} The others are done; run the same command again "
            "with --resume to try these again."
        )

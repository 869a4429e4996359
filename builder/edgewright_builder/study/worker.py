"""One worker of a study: `python -m edgewright_builder.study.worker STUDY.yaml FOLDER STORAGE SILENT MAX`.

It takes cells from the storage until none is left, and no new one after MAX seconds. SILENT are the seconds without a
heartbeat after which another worker counts as dead.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from edgewright.durable import write_json
from edgewright.errors import EdgewrightError, InputError
from edgewright.sizes import parse_bytes
from edgewright_builder.run.progress import Reporter
from edgewright_builder.run.work_queue import WorkQueue, opened_queue
from edgewright_builder.study.cells import StudyCell, cells_of
from edgewright_builder.study.run_cell import Workbench, run_cell
from edgewright_builder.study.study_file import StudyFile, load_study, profile_of

CELLS = "cells"


def result_file(folder: Path, cell: str) -> Path:
    """Returns where the result of a cell lies once it is done."""
    return folder / CELLS / f"{cell}.json"


def workbench_of(study: StudyFile, file: Path, folder: Path, reporter: Reporter) -> Workbench:
    """Returns what the cells of the study in `file` are run with.

    Raises InputError for an unknown device or a wrong size, and for a budget beyond the device's memory.
    """
    profile, budget_bytes = profile_of(study, file), parse_bytes(study.budget)
    profile.require_within_memory(budget_bytes)
    return Workbench(folder, profile, budget_bytes, reporter)


def work(
    queue: WorkQueue,
    cells: list[StudyCell],
    bench: Workbench,
    console: Console,
    *,
    seconds_max: float = math.inf,
) -> None:
    """Takes cells until none is left, none after `seconds_max`; each result also lies in `cells/NAME.json`."""
    by_name = {cell.name: cell for cell in cells}

    def run(name: str) -> Mapping[str, Any]:
        if name not in by_name:
            raise InputError(
                f"The storage holds the cell {name}, which this study's file does not have: start all workers with the "
                "same file."
            )
        result = run_cell(by_name[name], bench)
        (bench.folder / CELLS).mkdir(exist_ok=True)
        write_json(result_file(bench.folder, name), result)
        console.print(f"{name}: {result['seconds']:.0f} s", markup=False, highlight=False, soft_wrap=True)
        return result

    queue.work(run, seconds_max=seconds_max)


def main(study_file: str, folder: str, storage: str, silent_seconds: str, seconds_max: str) -> int:
    """Runs a worker; the stages' own lines stay in this process."""
    try:
        study = load_study(Path(study_file))
        bench = workbench_of(study, Path(study_file), Path(folder), Reporter(Console(file=io.StringIO())))
        with opened_queue(storage, study.name, silent_seconds=int(silent_seconds)) as queue:
            console = Console(highlight=False)
            work(queue, cells_of(study), bench, console, seconds_max=float(seconds_max))
    except EdgewrightError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"edgewright: {error}", markup=False)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    from edgewright_builder.run.library_output import quiet_libraries

    quiet_libraries()
    sys.exit(main(*sys.argv[1:]))

"""A worker of a cell queue for tests: `python queue_worker.py STORAGE STUDY SILENT_SECONDS FOLDER`.

A cell's work is to append its name to FOLDER/ran; the cell `slow` waits for FOLDER/go the first time it is taken.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from edgewright_builder.run.work_queue import opened_queue


def main(storage: str, study: str, silent_seconds: str, folder: str) -> None:
    """Works until no cell is left."""
    place = Path(folder)

    def run(name: str) -> Mapping[str, int]:
        taken = place / f"{name}.taken"
        if name == "slow" and not taken.exists():
            taken.write_text(str(os.getpid()), encoding="utf-8")
            while not (place / "go").exists():
                time.sleep(0.05)
        with (place / "ran").open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")
        return {"pid": os.getpid()}

    with opened_queue(storage, study, silent_seconds=int(silent_seconds)) as queue:
        queue.work(run)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Several processes of this host that take work from one queue."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence

from edgewright.die_with_parent import tethered
from edgewright.errors import OutsideError
from edgewright_builder.run.work_queue import WorkQueue

POLL_SECONDS = 0.5


def threads_of(workers: int) -> int:
    """Returns each worker's share of the processors."""
    return max(1, (os.cpu_count() or 1) // workers)


def run_workers(command: Sequence[str], workers: int, queue: WorkQueue) -> None:
    """Starts the workers, each with its share of the processors, and waits for them.

    Raises OutsideError if all of them fail.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads_of(workers))}
    children = [subprocess.Popen([*tethered(), *command], env=environment) for _ in range(workers)]
    try:
        codes = _wait(children, queue)
    except BaseException:  # Ctrl-C: the workers must not go on alone
        for child in children:
            child.kill()
        raise
    if all(codes):
        raise OutsideError(
            f"All {workers} workers failed, the last with exit code {codes[-1]}; their messages are above. Mend that "
            "and run the same command again with --resume."
        )


def _wait(children: Sequence[subprocess.Popen[bytes]], queue: WorkQueue) -> list[int]:
    """Returns the workers' exit codes. What one leaves that dies is given back while others are there to take it."""
    left = list(children)
    while left:
        for child in [child for child in left if child.poll() is not None]:
            left.remove(child)
            if child.returncode != 0:
                queue.give_back(child.pid)
        time.sleep(POLL_SECONDS)
    return [child.returncode for child in children]

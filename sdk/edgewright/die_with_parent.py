"""Become another program that dies with its parent: `python die_with_parent.py PARENT_PID COMMAND…`.

The kernel kills this process when the parent's thread that started it ends (prctl(2), PR_SET_PDEATHSIG; kept
across exec). Run by path and isolated, so it imports the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
# When memory runs out the kernel takes the engine, not the agent, whose score the unit file lowers to -900.
OOM_SCORE_ADJUST = b"500"


def tethered() -> list[str]:
    """Returns the beginning of a command line that makes the command die with this process, also by SIGKILL."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid())]


def main() -> None:
    """Ties this process to its parent, then runs the command in its place."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the knot was tied
        raise SystemExit(1)
    with open("/proc/self/oom_score_adj", "wb") as score:  # noqa: PTH123 - raising it is allowed to everybody
        score.write(OOM_SCORE_ADJUST)
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()

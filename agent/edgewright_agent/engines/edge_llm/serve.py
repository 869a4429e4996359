"""Runs the wheel's own server with a port and a key that no other user of the machine can read.

A script of its own, which imports nothing of Edgewright and runs in the wheel's interpreter. The server takes both on
its command line, which everybody may read in /proc; so they come through the environment, which only this user may.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points

COMMAND = "tensorrt-edgellm-serve"
PORT, KEY = "EDGEWRIGHT_ENGINE_PORT", "EDGEWRIGHT_ENGINE_KEY"


def main() -> None:
    """Serves until the process is told to end."""
    (command,) = entry_points(group="console_scripts", name=COMMAND)
    private = ["--host", "127.0.0.1", "--port", os.environ.pop(PORT), "--api-key", os.environ.pop(KEY)]
    sys.argv = [COMMAND, *sys.argv[1:], *private]
    command.load()()


if __name__ == "__main__":
    main()

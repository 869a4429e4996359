"""A real `edgewright-agent serve` in its own process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-m", "edgewright_agent")
READY = "serving on "


@dataclass(frozen=True)
class AgentProcess:
    """A running agent."""

    process: subprocess.Popen[str]
    address: str


@contextlib.contextmanager
def serving(store: Path, *options: str, handles: int | None = None) -> Iterator[AgentProcess]:
    """An agent that has said it serves, with so many file handles; killed at the end if it still runs."""
    limited = () if handles is None else ("sh", "-c", f'ulimit -n {handles}; exec "$@"', "sh")
    command = [
        *limited,
        *COMMAND,
        "serve",
        "--profile",
        "raspberry-pi-5-8gb",
        "--store",
        str(store),
        *options,
    ]
    environment = {**os.environ, "EDGEWRIGHT_FAKE_ENGINE": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            if not line.startswith(READY):
                raise AssertionError(process.communicate(timeout=10)[1])
            yield AgentProcess(process, line.removeprefix(READY))
        finally:
            process.kill()

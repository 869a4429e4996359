"""What docs/boards.md has people do on a board: keys, user, unit, doctor."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from virtual_board.machine import Machine
from virtual_board.needs import NeedError
from virtual_board.settings import SOURCES

KEYS = ("agent.pem", "agent.key", "ca.pem", "release.pub")
EDGEWRIGHT = SOURCES / ".venv/bin/edgewright"
SERVING_SECONDS = 600.0
RESTARTS_MAX = 2  # of a unit that is to come up: a third one would end as the first did


@dataclass(frozen=True)
class Agent:
    """The agent on a board, and the host's commands for it."""

    machine: Machine
    credentials: Path

    @property
    def address(self) -> str:
        """Where the host reaches it."""
        return f"127.0.0.1:{self.machine.port}"

    def set_up(self, profile: str, options: str) -> None:
        """Copies the keys and has systemd start the shipped unit, for good; `wait` waits for it."""
        for name in KEYS:
            data = base64.b64encode((self.credentials / name).read_bytes()).decode()
            self.machine.must(f"echo {data} | base64 -d > /etc/edgewright/{name}")
        self.machine.must("chmod 700 /etc/edgewright && chmod 600 /etc/edgewright/*")
        environment = f"EDGEWRIGHT_PROFILE={profile}\\nEDGEWRIGHT_OPTIONS={options}\\n"
        self.machine.must(f"printf '{environment}' > /etc/edgewright/agent.env")
        self.machine.must("systemctl enable edgewright-agent && systemctl start --no-block edgewright-agent")

    def wait(self) -> float:
        """Waits until the unit is up, which is when the agent serves; returns the seconds. Raises NeedError."""
        began = time.monotonic()
        restarts_before = self._restarts()
        while self.machine.run("systemctl is-active edgewright-agent").output.strip() != "active":
            fails = self._restarts() - restarts_before > RESTARTS_MAX
            if fails or time.monotonic() - began > SERVING_SECONDS:
                raise NeedError(self.machine.run("journalctl -u edgewright-agent -n 30 --no-pager").output)
            time.sleep(1)
        return time.monotonic() - began

    def _restarts(self) -> int:
        return int(self.machine.must("systemctl show edgewright-agent --property NRestarts --value"))

    def call(self, command: str, *arguments: str, seconds: float = 900.0) -> str:
        """Runs `edgewright COMMAND … ADDRESS …` on the host; returns what it printed. Raises NeedError."""
        done = self.attempt(command, *arguments, seconds=seconds)
        if done.returncode:
            raise NeedError(
                f"edgewright {command} ended with {done.returncode}: {done.stderr[-800:]}{done.stdout[-800:]}"
            )
        return done.stdout

    def attempt(
        self, command: str, *arguments: str, seconds: float = 900.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs the same, whatever it ends with."""
        line: Sequence[str] = (str(EDGEWRIGHT), command, *arguments, "--credentials", str(self.credentials))
        return subprocess.run(line, capture_output=True, text=True, timeout=seconds, check=False)

"""The values that checks take and return."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from edgewright.address import Address
from edgewright_agent.runtime.memory_budget import memory_budget_bytes
from edgewright_agent.runtime.tls import TlsFiles
from edgewright_profiles import DeviceProfile


class Severity(Enum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"  # it works, but worse or not for long
    PROBLEM = "problem"  # it does not work


@dataclass(frozen=True)
class Finding:
    """One sentence, and what to do unless all is well."""

    result: Severity
    sentence: str
    remedy: str = ""


@dataclass(frozen=True)
class Subject:
    """The board, and what its agent is started with. None: not given, so not checked."""

    root: Path = Path("/")  # of /proc, /sys and /etc
    profile: DeviceProfile | None = None
    budget_bytes: int | None = None  # None: the profile's
    store: Path | None = None
    tls: TlsFiles | None = None
    trust: tuple[Path, ...] = ()
    listen: Address | None = None
    start_engines: bool = True
    clock: Callable[[], float] = time.time

    @property
    def memory_budget_bytes(self) -> int | None:
        """Returns what a release may take at its peak; None without a profile."""
        return None if self.profile is None else memory_budget_bytes(self.profile, self.budget_bytes)


Check = Callable[[Subject], "Finding | None"]


def ok(sentence: str) -> Finding:
    """Returns a finding that all is well."""
    return Finding(Severity.OK, sentence)


def warning(sentence: str, remedy: str) -> Finding:
    """Returns a finding that it works, but worse or not for long."""
    return Finding(Severity.WARNING, sentence, remedy)


def problem(sentence: str, remedy: str) -> Finding:
    """Returns a finding that it does not work."""
    return Finding(Severity.PROBLEM, sentence, remedy)

"""Why an engine's process ended: the facts and the rules, without I/O."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from edgewright_agent.engine_worker.requests.exit_codes import ENDED_BY_REQUEST

# How an allocation fails in whatever program: C++, Python, CUDA, and Tegra's own spellings.
_OUT_OF_MEMORY = r"bad_alloc|MemoryError|out.of.memory|OutOfMemory|NvMapMemAlloc|NvMapMemHandleAlloc"
_ERROR = r"\b\w*(Error|Exception): \S"
_NOTHING = r"(?!)"  # a pattern that no line matches


@dataclass(frozen=True)
class LogWords:
    """How one engine words its end in its log, beside what any program says. Regular expressions; see `Launch`."""

    out_of_memory: str = _NOTHING  # an allocation failed, or would have
    error: str = _NOTHING  # a line with the reason
    consequence: str = _NOTHING  # an error that only follows from another one
    prefix: str = _NOTHING  # who and when, before each message

    def tells_shortage(self, line: str) -> bool:
        """Whether the line tells of an allocation that failed."""
        return re.search(f"{_OUT_OF_MEMORY}|{self.out_of_memory}", line, re.IGNORECASE) is not None

    def tells_reason(self, line: str) -> bool:
        """Whether the line is an error that does not follow from another one."""
        is_error = re.search(f"{_ERROR}|{self.error}", line) is not None
        return is_error and re.search(self.consequence, line) is None

    def message(self, line: str) -> str:
        """Returns the line without who said it and when."""
        return re.sub(f"^({self.prefix})", "", line)


ANY_PROGRAM = LogWords()


class DeathCause(Enum):
    """Why an engine's process ended."""

    STOPPED = "stopped"  # by `stop`
    EXITED = "exited"  # by itself, with an exit code
    KILLED = "killed"  # by a signal
    OUT_OF_MEMORY = "out of memory"  # of the process, its limit, or the board
    OVER_BUDGET = "over its memory budget"  # ended by the agent
    HUNG = "hung"  # it computed nothing for too long, and the agent ended it
    REQUEST = "brought down by a request"  # it said so before it ended itself


@dataclass(frozen=True)
class Death:
    """How an engine's process ended."""

    cause: DeathCause
    exit_code: int | None  # None if a signal ended it
    signal: int | None
    last_lines: tuple[str, ...]  # of what it printed
    ended_because: str = (
        ""  # the agent's reason for ending it: with OVER_BUDGET peak and budget, with HUNG the deadline
    )
    lost: str = ""  # one of its processes, without which the agent ended the others
    said: str = ""  # the line that tells why, where it is not the last
    requests_under_way: int = 0  # clients' requests that it was working on

    @property
    def is_of_requests(self) -> bool:
        """Whether clients' requests may have caused it: then it says nothing against the release."""
        return self.cause is DeathCause.REQUEST or (
            self.requests_under_way > 0 and self.cause is not DeathCause.STOPPED
        )

    @property
    def sentence(self) -> str:
        """Says how it died in a few words, for errors and logs."""
        if self.ended_because:
            return f"{self.cause.value}: {self.ended_because}"
        how = f"signal {self.signal}" if self.signal is not None else f"exit code {self.exit_code}"
        how = f"its process {self.lost} ended" if self.lost else how
        line = (self.said or "".join(self.last_lines[-1:])).rstrip(".")
        return f"{self.cause.value} ({how}){'; it said: ' if line else ''}{line}"


@dataclass(frozen=True)
class Verdict:
    """Why the agent ended a process by itself."""

    cause: DeathCause  # OVER_BUDGET or HUNG
    reason: str  # with the figures


def classify(
    returncode: int,
    *,
    asked: bool,
    killed_for_memory: bool,
    of_its_own: bool = False,
    last_lines: Sequence[str],
    verdict: Verdict | None = None,
    lost: str = "",
    requests_under_way: int = 0,
    words: LogWords = ANY_PROGRAM,
) -> Death:
    """Returns the death of a process that ended with `returncode` (as subprocess gives it: −n for signal n).

    `asked`: `stop` ended it. `killed_for_memory`: the kernel's out-of-memory killer was at work in its life;
    `of_its_own`: certainly on one of its processes, perhaps a child. `verdict`: the agent ended it for this.
    `lost`: the agent ended it because this one of its processes had ended. `words`: those of its log.
    """
    ended_by = -returncode if returncode < 0 else None
    exit_code = returncode if returncode >= 0 else None
    if verdict is not None and ended_by == signal.SIGKILL:
        return Death(
            verdict.cause, exit_code, ended_by, tuple(last_lines), verdict.reason,
            requests_under_way=requests_under_way,
        )  # fmt: skip
    lacks_memory = (killed_for_memory and (ended_by == signal.SIGKILL or of_its_own)) or (
        returncode != 0 and shortage_line(last_lines, words) is not None
    )
    cause = _cause(returncode, asked=asked, lacks_memory=lacks_memory)
    said = telling_line(last_lines, words) if ended_by is None or lost else ""
    if cause is DeathCause.OUT_OF_MEMORY and said:
        said = words.message(shortage_line(last_lines, words) or said)
    return Death(
        cause, exit_code, ended_by, tuple(last_lines),
        lost=lost, said=said, requests_under_way=requests_under_way,
    )  # fmt: skip


def _cause(returncode: int, *, asked: bool, lacks_memory: bool) -> DeathCause:
    if asked:
        return DeathCause.STOPPED
    if returncode == ENDED_BY_REQUEST:
        return DeathCause.REQUEST
    if lacks_memory:
        return DeathCause.OUT_OF_MEMORY
    return DeathCause.KILLED if returncode < 0 else DeathCause.EXITED


def telling_line(lines: Sequence[str], words: LogWords) -> str:
    """Returns the line that says why a process ended by itself: the last error that is no consequence of another."""
    if not lines:
        return ""
    errors = [line for line in lines if words.tells_reason(line)]
    return words.message((errors or lines)[-1])


def shortage_line(lines: Sequence[str], words: LogWords) -> str | None:
    """Returns the last line that tells of an allocation that failed."""
    return next((line for line in reversed(lines) if words.tells_shortage(line)), None)

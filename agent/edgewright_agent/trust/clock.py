"""The time a trust document's expiry is judged by: a clock that never runs backwards.

Boards without a battery start in 1970, and whoever can set a board's clock back could keep an expired
document alive (a freeze attack). So the latest time seen is kept on disk, at most an hour old, and no
earlier time is believed. A clock that once ran ahead is repaired by the next trust document: accepting one
sets the memory back to its signed time of issue, and the board's own clock counts again. A disk that takes no
writes stops nothing: the agent remembers for itself, and writes it down as soon as that can be.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from edgewright.durable import FileSystem, read_regular, write_durably
from edgewright.errors import OutsideError
from edgewright_agent.runtime.failures import log_failure

REMEMBER_SECONDS = 3600.0
YEAR_9999_SECONDS = 253_402_300_799

_log = logging.getLogger(__name__)


class MonotoneClock:
    """A clock of seconds since 1970 that never runs backwards. Without a `path` it forgets when the agent stops."""

    def __init__(self, fs: FileSystem, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._fs = fs
        self._path = path
        self._clock = clock
        self._written = _read(path)
        self._seen = self._written

    def now(self) -> datetime:
        """Returns the later of the system's time and the latest time seen."""
        self._seen = min(max(self._seen, self._clock()), YEAR_9999_SECONDS)
        if abs(self._seen - self._written) >= REMEMBER_SECONDS:
            self._remember()
        return datetime.fromtimestamp(self._seen, timezone.utc)

    def reset(self, signed: datetime) -> None:
        """Forgets what it saw before: a signed time is better."""
        self._seen = max(signed.timestamp(), self._clock())
        self._remember()

    def _remember(self) -> None:
        try:
            if self._path is not None:
                write_durably(self._fs, self._path, _line(int(self._seen)))
        except OutsideError as error:
            log_failure(_log, "the time can't be remembered", error)
        else:
            self._written = self._seen


def _read(path: Path | None) -> float:
    if path is None:
        return 0.0
    try:
        data = read_regular(path)
        seconds = int(data.split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0  # none yet, or damaged: the system's clock and the next document's time remain
    return float(seconds) if 0 <= seconds <= YEAR_9999_SECONDS and data == _line(seconds) else 0.0


def _line(seconds: int) -> bytes:
    """Returns the line with a checksum: a flipped bit must not set the clock ahead."""
    return b"%d %08x\n" % (seconds, zlib.crc32(b"%d" % seconds))

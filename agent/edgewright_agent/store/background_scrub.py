"""Reads the whole store again and again in the background: slowly, with the lowest priority, and on from where it
was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgewright.durable import Pace
from edgewright.errors import EdgewrightError
from edgewright_agent.store.files.state_file import StateFile
from edgewright_agent.store.scrub import ScrubStoppedError, damaged_releases, is_sound
from edgewright_agent.store.store import Store

INTERVAL_SECONDS = 7 * 24 * 3600.0  # from the end of one round to the next
BYTES_PER_SECOND = 8 * 1024 * 1024
RECORD_SECONDS = 60.0  # what a restart costs; flash is written no more often
BUSY_SECONDS = 0.5  # between two looks whether the board is still busy
RETRY_SECONDS = 600.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackgroundScrubSettings:
    """How often and how fast the store is read."""

    interval_seconds: float = INTERVAL_SECONDS  # 0: never
    bytes_per_second: int = BYTES_PER_SECOND


class BackgroundScrub:
    """Verifies one blob after another, in the order of their digests, and remembers on disk how far it came."""

    def __init__(
        self,
        store: Store,
        settings: BackgroundScrubSettings,
        *,
        is_busy: Callable[[], bool],
        found: Callable[[frozenset[str]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`is_busy` says whether to wait. `found` gets the damaged releases as soon as there is one."""
        self._store = store
        self._settings = settings
        self._is_busy = is_busy
        self._found = found
        self._clock = clock
        self._file = StateFile(store.fs, store.layout.scrub)
        saved = self._file.read() or {}
        self._after = str(saved.get("after", ""))  # the digest verified last; empty between rounds
        # The last round, by the board's clock. A new store has just been verified.
        self._ended = float(saved.get("ended", store.layout.version.stat().st_mtime))
        self._recorded = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Scrubs round after round until `stop` is set."""
        while not stop.wait(self._due_seconds()):
            try:
                self._round(stop)
            except ScrubStoppedError:
                break
            except EdgewrightError as error:  # a disk that can't be read, or a record that can't be written
                _log.warning("the background scrub waits: %s", error)
                if stop.wait(RETRY_SECONDS):
                    break

    def _due_seconds(self) -> float:
        since = self._clock() - self._ended
        if self._after or since < 0.0:  # under way; or the clock was set back
            return 0.0
        return max(0.0, self._settings.interval_seconds - since)

    def _round(self, stop: threading.Event) -> None:
        pace = self._pace(stop)
        for sha256 in sorted(each for each in self._store.blob_bytes() if each > self._after):
            if not is_sound(self._store, sha256, pace):
                self._report(frozenset({sha256}))
            self._after = sha256
            self._record(at_once=False)
        self._report(frozenset())
        self._after, self._ended = "", self._clock()
        self._record(at_once=True)

    def _report(self, corrupt: frozenset[str]) -> None:
        damaged = damaged_releases(self._store, corrupt)
        for sha256 in corrupt:
            _log.error("blob %s has rotted; it is in quarantine. Push its release again.", sha256)
        if damaged:
            _log.error("damaged releases: %s", ", ".join(damaged))
            self._found(frozenset(damaged))

    def _record(self, *, at_once: bool) -> None:
        if at_once or time.monotonic() - self._recorded >= RECORD_SECONDS:
            self._file.write({"after": self._after, "ended": self._ended})
            self._recorded = time.monotonic()

    def _pace(self, stop: threading.Event) -> Pace:
        def pace(piece_bytes: int) -> None:
            while self._is_busy():
                if stop.wait(BUSY_SECONDS):
                    raise ScrubStoppedError
            if stop.wait(piece_bytes / self._settings.bytes_per_second):
                raise ScrubStoppedError

        return pace

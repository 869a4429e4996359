"""Keeps snapshots on disk while nobody listens, so that a host that comes later learns what happened.

Flash memory wears out by being written, and each write of a file system is some tens of KiB, however short the entry.
So entries are held in memory and written together, and where nothing happens few of them are kept. A power cut costs
what is held. An agent that is stopped, and a host that reads, lose nothing. On a full disk a host reads what is there,
and what is held once the disk takes it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edgewright.durable import disk_errors
from edgewright.v1 import telemetry_pb2
from edgewright_agent.runtime.failures import log_failure
from edgewright_agent.telemetry.exporters.ring import Ring

RECORD_SECONDS = 10.0
IDLE_KEEPS_ONE_IN = 30  # of the snapshots between which no request and no release changed
HELD_SECONDS = 2 * 3600.0
HELD_BYTES = 64 * 1024  # seven minutes of a busy board
HELD_BYTES_MAX = 2 * HELD_BYTES  # where the disk takes nothing
HISTORY_BYTES = 16 * 1024 * 1024  # a day of a busy board at 1.5 kB every 10 s, a month of an idle one

_log = logging.getLogger(__name__)


class Recorder:
    """Looks every `interval_seconds`, as long as `run` runs, and keeps what is worth it. Safe for several threads."""

    def __init__(
        self,
        folder: Path,
        snapshot: Callable[[], telemetry_pb2.Snapshot],
        *,
        bytes_max: int = HISTORY_BYTES,
        interval_seconds: float = RECORD_SECONDS,
        held_seconds: float = HELD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._ring: Ring | None = None  # opened once the disk lets it
        self._snapshot = snapshot
        self._interval_seconds = interval_seconds
        self._held_seconds = held_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._held: list[bytes] = []
        self._held_since = 0.0
        self._kept: telemetry_pb2.Snapshot | None = None
        self._passed_over = 0
        self._failing = False

    @property
    def last_sequence(self) -> int:
        """The number of the newest snapshot on disk, where those held go first; 0 if there is none."""
        self.write()
        return 0 if self._ring is None else self._ring.last_sequence

    async def run(self) -> None:
        """Records for ever. What fails is tried again, and logged once."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(self._interval_seconds)

    def look(self) -> None:
        """Records what is measured now, unless nothing has happened and it is not its turn."""
        self._record(always=False)

    def record(self) -> None:
        """Records what is measured now."""
        self._record(always=True)

    def recorded(self, after_sequence: int) -> Iterator[tuple[int, telemetry_pb2.Snapshot]]:
        """Yields the snapshots recorded after that one, oldest first; those that the disk does not take come later.

        Raises OutsideError if the record can't be read.
        """
        with disk_errors(self._folder):
            with self._lock:
                ring = self._opened()
                self._try(self._write_held)
            for sequence, payload in ring.read(after_sequence):
                yield sequence, telemetry_pb2.Snapshot.FromString(payload)

    def write(self) -> None:
        """Writes what is held. What the disk does not take stays held, and is logged once."""
        with self._lock:
            self._try(self._write_held)

    def _record(self, *, always: bool) -> None:
        with self._lock:
            self._try(lambda: self._take(always=always))

    def _take(self, *, always: bool) -> None:
        snapshot = self._snapshot()
        if always or self._is_worth_it(snapshot):
            self._kept, self._passed_over = snapshot, 0
            self._hold(snapshot.SerializeToString())
        if self._held and self._is_time_to_write():
            self._write_held()

    def _is_worth_it(self, snapshot: telemetry_pb2.Snapshot) -> bool:
        self._passed_over += 1
        return (
            self._kept is None
            or self._passed_over >= IDLE_KEEPS_ONE_IN
            or self._kept.serving != snapshot.serving
            or self._kept.active_release != snapshot.active_release
        )

    def _is_time_to_write(self) -> bool:
        return self._clock() - self._held_since >= self._held_seconds or self._held_bytes() >= HELD_BYTES

    def _hold(self, payload: bytes) -> None:
        if not self._held:
            self._held_since = self._clock()
        self._held.append(payload)
        while self._held_bytes() > HELD_BYTES_MAX:
            del self._held[0]

    def _held_bytes(self) -> int:
        return sum(map(len, self._held))

    def _write_held(self) -> None:
        ring = self._opened()
        while self._held:
            del self._held[: ring.extend(self._held)]

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next one is recorded
            if not self._failing:
                log_failure(_log, "telemetry is not recorded", error)
            self._failing = True
        else:
            self._failing = False

    def _opened(self) -> Ring:
        """Returns the record. Raises OSError; it is opened late, so that a full disk does not keep the agent from
        starting.
        """
        if self._ring is None:
            self._ring = Ring(self._folder, self._bytes_max)
        return self._ring

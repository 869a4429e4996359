"""Keeps snapshots on disk while nobody listens, so that a host that comes later learns what happened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from edgewright.v1 import telemetry_pb2
from edgewright_agent.runtime.failures import log_failure
from edgewright_agent.telemetry.exporters.ring import Ring

RECORD_SECONDS = 10.0
HISTORY_BYTES = 16 * 1024 * 1024  # about a day at 1.5 kB every 10 s

_log = logging.getLogger(__name__)


class Recorder:
    """Records a snapshot every `interval_seconds`, as long as `run` runs."""

    def __init__(
        self,
        folder: Path,
        snapshot: Callable[[], telemetry_pb2.Snapshot],
        *,
        bytes_max: int = HISTORY_BYTES,
        interval_seconds: float = RECORD_SECONDS,
    ) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._ring: Ring | None = None  # opened once the disk lets it
        self._snapshot = snapshot
        self._interval_seconds = interval_seconds
        self._failing = False

    @property
    def last_sequence(self) -> int:
        """The number of the newest snapshot recorded; 0 if there is none."""
        return 0 if self._ring is None else self._ring.last_sequence

    async def run(self) -> None:
        """Records for ever. What fails is tried again, and logged once."""
        while True:
            await asyncio.to_thread(self.record)
            await asyncio.sleep(self._interval_seconds)

    def record(self) -> None:
        """Records what is measured now."""
        try:
            self._opened().append(self._snapshot().SerializeToString())
        except Exception as error:  # noqa: BLE001 - whatever it is, the next one is recorded
            if not self._failing:
                log_failure(_log, "telemetry is not recorded", error)
            self._failing = True
        else:
            self._failing = False

    def recorded(self, after_sequence: int) -> Iterator[tuple[int, telemetry_pb2.Snapshot]]:
        """Yields the snapshots recorded after that one, oldest first."""
        for sequence, payload in self._opened().read(after_sequence):
            yield sequence, telemetry_pb2.Snapshot.FromString(payload)

    def _opened(self) -> Ring:
        """Returns the record. Raises OSError; it is opened late, so that a full disk does not keep the agent from
        starting.
        """
        if self._ring is None:
            self._ring = Ring(self._folder, self._bytes_max)
        return self._ring

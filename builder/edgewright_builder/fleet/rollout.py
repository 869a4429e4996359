"""Follows the waves: a bounded number of devices at once, each with a time limit, until done or stopped."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from edgewright.errors import BusyError, EdgewrightError, OutsideError
from edgewright_agent.runtime.threads import within
from edgewright_builder.device_client.failures import LinkError
from edgewright_builder.fleet.inventory import FleetDevice
from edgewright_builder.fleet.journal import DeviceResult, RolloutJournal
from edgewright_builder.fleet.wave_rules import (
    SUCCESSES,
    DeviceOutcome,
    Thresholds,
    abort_reason,
    hold_reason,
)
from edgewright_builder.push.push import PushResult
from edgewright_builder.show.sheet import Grid, Lines, Sheet, shown

Update = Callable[[FleetDevice], Awaitable[PushResult]]


@dataclass(frozen=True)
class RolloutSettings:
    """How a rollout goes about it."""

    wave_ends: Sequence[int]
    thresholds: Thresholds
    parallel: int  # devices at once
    timeout_seconds: float  # for one device


@dataclass(frozen=True)
class RolloutListener:
    """Who watches."""

    wave_begins: Callable[[int, int], None] = lambda number, devices: None
    device_begins: Callable[[FleetDevice], None] = lambda device: None
    device_ended: Callable[[FleetDevice, DeviceResult], None] = lambda device, result: None


COLUMNS = ("device", "outcome", "serves", "sent", "seconds", "message")
ROWS_MAX = 25  # above this the summary names only the devices that need a look


class RolloutDocument(TypedDict):
    """The report as JSON holds it."""

    complete: bool
    stopped: str | None
    devices: list[DeviceResult]
    not_begun: list[str]


@shown
@dataclass(frozen=True)
class RolloutReport:
    """The results of a rollout, board by board."""

    results: dict[str, DeviceResult]  # by device name, of those that were attempted
    untouched: tuple[str, ...]  # names of devices never begun
    stopped: str | None  # why the rollout did not reach every device
    activated: bool = True  # False: the release was to be staged only

    @property
    def complete(self) -> bool:
        """Whether every device of the rollout serves the release, or holds it where it was only to be staged."""
        return not self.untouched and all(result.outcome in SUCCESSES for result in self.results.values())

    def _document(self) -> RolloutDocument:
        results = self.results.values()
        return {
            "complete": self.complete,
            "stopped": self.stopped,
            "devices": list(results),
            "not_begun": list(self.untouched),
        }

    def _sheet(self) -> Sheet:
        results = list(self.results.values())
        shown_results = results
        if len(results) > ROWS_MAX:
            shown_results = [result for result in results if result.outcome not in SUCCESSES]
        parts: list[Grid | Lines] = [Grid(COLUMNS, [result.row() for result in shown_results])] * bool(
            shown_results
        )
        counts = Counter(result.outcome.value for result in results)
        if self.untouched:
            counts["not begun"] = len(self.untouched)
        return Sheet((*parts, Lines([", ".join(f"{count} {outcome}" for outcome, count in counts.items())])))


async def roll_out(
    devices: Sequence[FleetDevice],
    update: Update,
    journal: RolloutJournal,
    settings: RolloutSettings,
    listener: RolloutListener = RolloutListener(),
) -> RolloutReport:
    """Updates the devices in waves; what the journal holds from an earlier attempt counts as done here.

    A failed device never raises: it is in the report. When the error threshold is passed, devices under way are
    finished (half an update helps nobody) and no other is begun.
    """
    rollout = _Rollout(update, journal, settings, listener)
    begin, stopped = 0, None
    for number, end in enumerate(settings.wave_ends, 1):
        wave = devices[begin:end]
        listener.wave_begins(number, len(wave))
        stopped = await rollout.wave(wave)
        if stopped is None and end < len(devices):
            stopped = hold_reason(rollout.outcomes(wave), settings.thresholds)
        if stopped is not None:
            break
        begin = end
    names = [device.name for device in devices]
    results = {name: journal.results[name] for name in names if name in journal.results}
    return RolloutReport(results, tuple(name for name in names if name not in results), stopped)


class _Rollout:
    def __init__(
        self, update: Update, journal: RolloutJournal, settings: RolloutSettings, listener: RolloutListener
    ) -> None:
        self._update = update
        self._journal = journal
        self._settings = settings
        self._listener = listener
        self._attempted: list[str] = []
        self._stopped: str | None = None  # stays: what was under way may lower the share again

    async def wave(self, devices: Sequence[FleetDevice]) -> str | None:
        """Updates one wave; returns why the rollout must stop, or None."""
        settled = [device for device in devices if self._is_settled(device)]
        self._count(*(device.name for device in settled))
        waiting = [device for device in devices if device not in settled]
        await asyncio.gather(*(self._worker(waiting) for _ in range(self._settings.parallel)))
        return self._stopped

    def outcomes(self, devices: Sequence[FleetDevice]) -> list[DeviceOutcome]:
        """Returns how the devices of a finished wave ended."""
        return [self._journal.results[device.name].outcome for device in devices]

    def _is_settled(self, device: FleetDevice) -> bool:
        result = self._journal.results.get(device.name)
        return result is not None and result.settled

    async def _worker(self, waiting: list[FleetDevice]) -> None:
        """Takes one device after another until none waits or the error threshold is passed."""
        while waiting and self._stopped is None:
            device = waiting.pop(0)
            self._listener.device_begins(device)
            result = await self._result(device)
            self._journal.record(result)
            self._count(device.name)
            self._listener.device_ended(device, result)

    def _count(self, *names: str) -> None:
        """Counts devices as attempted, and stops the rollout once the error threshold is passed."""
        self._attempted += names
        outcomes = [self._journal.results[name].outcome for name in self._attempted]
        self._stopped = self._stopped or abort_reason(outcomes, self._settings.thresholds)

    async def _result(self, device: FleetDevice) -> DeviceResult:
        begin = time.monotonic()
        limit_seconds = self._settings.timeout_seconds
        try:
            result = _of_push(device, await within(limit_seconds, self._update(device)))
        except asyncio.TimeoutError:
            message = f"no verdict within {limit_seconds:g} s; ask its status"
            result = _without_verdict(device, DeviceOutcome.TIMED_OUT, message)
        except EdgewrightError as error:
            result = _without_verdict(device, _outcome_of(error), str(error))
        except OSError as error:  # of this host: no reason to leave other devices half updated
            result = _without_verdict(device, DeviceOutcome.FAILED, f"This machine failed: {error}.")
        return replace(result, seconds=time.monotonic() - begin)


def _outcome_of(error: EdgewrightError) -> DeviceOutcome:
    if isinstance(error, LinkError):
        return DeviceOutcome.UNREACHABLE
    if isinstance(error, BusyError):
        return DeviceOutcome.BUSY
    return DeviceOutcome.FAILED if isinstance(error, OutsideError) else DeviceOutcome.REFUSED


def _without_verdict(device: FleetDevice, outcome: DeviceOutcome, message: str) -> DeviceResult:
    return DeviceResult(device.name, outcome, message, release="", sent_bytes=0, seconds=0.0)


def _of_push(device: FleetDevice, pushed: PushResult) -> DeviceResult:
    verdict = pushed.verdict
    if verdict is None:
        return DeviceResult(
            device.name, DeviceOutcome.STAGED, "staged; not activated", "", pushed.sent_bytes, 0.0
        )
    outcome = DeviceOutcome.COMMITTED if verdict.committed else DeviceOutcome.ROLLED_BACK
    failed = [
        f"{probe.name}: {probe.detail}" for probe in verdict.probes if probe.required and not probe.passed
    ]
    message = "; ".join([verdict.message, *failed])
    return DeviceResult(device.name, outcome, message, verdict.active_release, pushed.sent_bytes, 0.0)

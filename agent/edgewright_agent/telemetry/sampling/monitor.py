"""`Telemetry`: one thread that samples the board, and the requests it serves."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from edgewright_agent.engines import EngineMemory
from edgewright_agent.runtime.failures import log_failure
from edgewright_agent.telemetry.collectors import memory
from edgewright_agent.telemetry.collectors.registry import GAUGES, discover_rails, read_gauges
from edgewright_agent.telemetry.collectors.sysfs import NoDataError
from edgewright_agent.telemetry.joule_counter import Point
from edgewright_agent.telemetry.sampling.board_power import PowerMeter
from edgewright_agent.telemetry.serving import OnEnded, RequestWindow, ServingStats
from edgewright_agent.telemetry.types import (
    BoardMemory,
    EndedRequest,
    EnergyMark,
    EnergyRail,
    EnergyWindow,
    MemoryUsage,
    Operation,
    SensorStatus,
    ServedBy,
    ServingSummary,
    Snapshot,
    Throttling,
)
from edgewright_profiles import DeviceProfile

SAMPLE_SECONDS = 0.1  # energy and memory
GAUGE_SECONDS = 1.0  # all that changes slowly

_log = logging.getLogger(__name__)


class Telemetry:
    """Samples power and memory at 10 Hz and everything else at 1 Hz, in one background thread.

    All methods may be called from any thread; only `start` and those named sample wait for a sensor.
    """

    def __init__(
        self,
        profile: DeviceProfile,
        root: Path = Path("/"),
        *,
        budget_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`root` holds `/sys`, `/proc`, `/etc` and `/var`. `budget_bytes` is reported as it is; None: there is none."""
        self._profile, self._root, self._clock = profile, root, clock
        self._budget_bytes = budget_bytes
        whole = profile.whole_module_rails
        self._power = PowerMeter((), whole.value if whole is not None else (), clock)
        self._energy_sources: tuple[SensorStatus, ...] = ()  # what the search for each said
        self._serving = ServingStats()
        self._draining: tuple[ServingStats, ...] = ()  # of releases before, whose last requests are not over
        self._engine_memory: Callable[[], EngineMemory] | None = None
        self._gauges: dict[str, Any] = {}
        self._gauge_sensors: tuple[SensorStatus, ...] = ()
        self._answering: frozenset[str] = frozenset()  # sensors, at the last sample of everything
        self._failing = False
        self._listeners: list[OnEnded] = []
        self._used_peak_bytes = 0
        self._sampling = threading.Lock()
        self._look_for_rails()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Takes a first sample, then goes on in the background. Starting twice changes nothing."""
        if self._thread is None:
            self.sample()
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the background thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def sample(self) -> None:
        """Takes one sample of everything."""
        self._look_for_rails()
        self._sample_fast()
        self._gauges, self._gauge_sensors = read_gauges(self._root)
        self._say_what_fell_silent(self._sensors())
        self._failing = False

    def now(self) -> float:
        """Returns the clock of all windows and samples, in seconds."""
        return self._clock()

    def request(
        self, served_by: ServedBy = ServedBy(), operation: Operation = "text_completion"
    ) -> RequestWindow:
        """Opens the window of a request that is admitted now. Mark its tokens, then end, fail or reject it."""
        return RequestWindow(
            self._serving, self.energy_between, self._clock, self._ended, served_by, operation
        )

    def subscribe(self, listener: OnEnded) -> None:
        """Calls `listener` with every request that ends from now on, in the thread that ended it."""
        self._listeners.append(listener)

    def _ended(self, ended: EndedRequest) -> None:
        for listener in self._listeners:
            listener(ended)

    def reset_serving(self) -> None:
        """Sets the counters to zero for a new release. Open windows still count for the old one."""
        self._draining = tuple(stats for stats in (*self._draining, self._serving) if stats.in_flight)
        self._serving = ServingStats()

    def set_engine_memory_source(self, source: Callable[[], EngineMemory] | None) -> None:
        """Sets where the engine's memory is read from at each snapshot; None: no engine runs."""
        self._engine_memory = source

    @property
    def requests_in_flight(self) -> int:
        """Returns the requests that are admitted and not over, whichever release they were admitted to."""
        return sum(stats.in_flight for stats in (*self._draining, self._serving))

    def serving(self) -> ServingSummary:
        """Returns the active release's requests."""
        return self._serving.serving()

    def energy(self) -> EnergyRail | None:
        """Returns the rail that speaks for the board, or for as much of it as is measured; None without sensors."""
        return self._power.best()

    def energy_points(self) -> dict[str, tuple[Point, ...]]:
        """Returns the counter of each rail after each of its samples, by the rail's name."""
        return self._power.points()

    def sample_energy(self) -> EnergyMark | None:
        """Reads all rails now; the mark is of the rail `energy` gives. None without sensors."""
        with self._sampling:
            self._power.sample()
            return self._power.mark()

    def energy_between(
        self, admitted_seconds: float, first_token_seconds: float, last_token_seconds: float
    ) -> EnergyWindow | None:
        """Returns a request's energy on the rail that `energy` gives; None without sensors, or across a gap."""
        return self._power.window(admitted_seconds, first_token_seconds, last_token_seconds)

    def throttle_events(self) -> int | None:
        """Returns how often the board has slowed itself down since boot, for whatever cause; None where it does not
        count.
        """
        counters: tuple[Throttling, ...] | None = self._gauges.get("throttling")
        return None if counters is None else sum(counter.events for counter in counters)

    def engine_memory(self) -> EngineMemory | None:
        """Returns the engine's memory now; None if no engine runs."""
        source = self._engine_memory
        return None if source is None else source()

    def snapshot(self) -> Snapshot:
        """Returns everything measured. Gauges are at most a second old while the thread runs."""
        if not self._gauge_sensors:
            self.sample()
        gauges = self._gauges
        return Snapshot(
            unix_seconds=time.time(),
            monotonic_seconds=self._clock(),
            profile_id=self._profile.id,
            serving=self.serving(),
            memory=self._memory(gauges),
            energy=self._power.answering(),
            temperatures=gauges.get("thermal", ()),
            power_mode=gauges.get("power_mode"),
            sensors=self._sensors(),
            gpu_load_ratio=gauges.get("gpu_load"),
            clocks=gauges.get("clocks", ()),
            throttling=gauges.get("throttling", ()),
        )

    def _memory(self, gauges: Mapping[str, Any]) -> MemoryUsage | None:
        board: BoardMemory | None = gauges.get("memory")
        if board is None:
            return None
        return MemoryUsage(
            total_bytes=board.total_bytes,
            available_bytes=board.available_bytes,
            swap_used_bytes=board.swap_used_bytes,
            budget_bytes=self._budget_bytes,
            agent_bytes=int(psutil.Process(os.getpid()).memory_info().rss),
            used_peak_bytes=self._used_peak_bytes,
            engine=self.engine_memory(),
            nvmap_used_bytes=board.nvmap_used_bytes,
            free_blocks=gauges.get("free_blocks"),
            pressure=gauges.get("memory_pressure"),
        )

    def _sample_fast(self) -> None:
        self.sample_energy()
        try:
            board = memory.read(self._root)
        except NoDataError:
            return  # the gauge of the same name says so
        self._used_peak_bytes = max(self._used_peak_bytes, board.total_bytes - board.available_bytes)

    def _look_for_rails(self) -> None:
        """Looks for rails again: a driver may come after the agent, and one that was loaded again has other files."""
        rails, self._energy_sources = discover_rails(self._root)
        with self._sampling:
            self._power.take_up(rails)

    def _sensors(self) -> tuple[SensorStatus, ...]:
        return (*self._power.sensors(self._energy_sources), *self._gauge_sensors)

    def _say_what_fell_silent(self, sensors: tuple[SensorStatus, ...]) -> None:
        for sensor in sensors:
            if sensor.name in self._answering and not sensor.available:
                _log.warning("the sensor %s no longer answers: %s", sensor.name, sensor.detail)
        self._answering = frozenset(sensor.name for sensor in sensors if sensor.available)

    def _run(self) -> None:
        due = time.monotonic() + SAMPLE_SECONDS
        gauges_due = time.monotonic() + GAUGE_SECONDS
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            due = max(due, now - SAMPLE_SECONDS) + SAMPLE_SECONDS  # late samples are not made up for
            if now >= gauges_due:
                gauges_due = now + GAUGE_SECONDS
                self._try(self.sample)
            else:
                self._try(self._sample_fast)

    def _try(self, sample: Callable[[], None]) -> None:
        """Takes a sample. One that fails ends nothing, and leaves no old values behind that look like new ones."""
        try:
            sample()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next sample is taken
            if not self._failing:
                log_failure(_log, "the board can't be measured", error)
            self._failing = True
            why = f"the last sample failed: {error}"
            self._gauges, self._gauge_sensors = {}, tuple(SensorStatus(name, False, why) for name in GAUGES)

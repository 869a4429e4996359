"""What stays of telemetry when the board can't be measured for a while: nothing old, and all of it afterwards."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.telemetry import Snapshot
from edgewright_agent.telemetry.collectors.registry import GAUGES
from edgewright_agent.telemetry.sampling import monitor
from edgewright_agent.telemetry.sampling.monitor import Telemetry
from edgewright_profiles import load_profile
from tests.fixtures.boards import write_board


@pytest.fixture
def telemetry(tmp_path: Path) -> Iterator[Telemetry]:
    telemetry = Telemetry(load_profile("jetson-orin-nano-8gb"), write_board("orin-nano", tmp_path))
    yield telemetry
    telemetry.stop()


@contextlib.contextmanager
def no_file_handles() -> Iterator[None]:
    """This process can open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open("/dev/null", os.O_RDONLY)]
    highest = max(int(file.name) for file in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for file in held:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def available(snapshot: Snapshot) -> set[str]:
    return {sensor.name for sensor in snapshot.sensors if sensor.available}


def test_without_file_handles_gauges_are_absent_and_say_why_and_come_back(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry.sample()
    before = telemetry.snapshot()
    assert before.temperatures
    with no_file_handles():
        for _ in range(3):
            telemetry.sample()
    during = telemetry.snapshot()
    assert (during.memory, during.temperatures, during.clocks, during.power_mode) == (None, (), (), None)
    assert not available(during) & GAUGES.keys()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(set(said))
    assert sum("thermal" in line for line in said) == 1
    telemetry.sample()
    after = telemetry.snapshot()
    assert after.temperatures == before.temperatures
    assert available(after) == available(before)


def test_the_agent_starts_without_file_handles(telemetry: Telemetry) -> None:
    with no_file_handles():
        telemetry.sample()
    assert telemetry.snapshot().memory is None


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_thread_outlives_whatever_a_collector_raises(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(monitor, "SAMPLE_SECONDS", 0.005)
    monkeypatch.setattr(monitor, "GAUGE_SECONDS", 0.01)
    failed = []

    def fail(root: Path) -> Any:
        failed.append(root)
        raise RuntimeError("a bug")

    telemetry.start()
    with monkeypatch.context() as fault:
        fault.setitem(GAUGES, "clocks", fail)
        until(lambda: len(failed) > 2)
        during = telemetry.snapshot()
    assert (during.temperatures, during.clocks, during.memory) == ((), (), None)
    assert {sensor.detail for sensor in during.sensors if sensor.name in GAUGES} == {
        "the last sample failed: a bug"
    }
    until(lambda: bool(telemetry.snapshot().clocks))
    assert telemetry.snapshot().temperatures
    assert [record.getMessage() for record in caplog.records] == ["the board can't be measured: a bug"]

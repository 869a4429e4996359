from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.v1 import telemetry_pb2
from edgewright_agent.telemetry.recorder import Recorder
from edgewright_agent.telemetry.ring import ENTRY_BYTES_MAX, SEGMENTS, Ring


def stored_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_entries_come_back_in_order_after_a_restart(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring", 10_000)
    assert [ring.append(f"entry {number}".encode()) for number in range(5)] == [1, 2, 3, 4, 5]
    again = Ring(tmp_path / "ring", 10_000)
    assert list(again.read(3)) == [(4, b"entry 3"), (5, b"entry 4")]
    assert again.append(b"more") == 6


@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=80), bytes_max=st.integers(400, 4000))
def test_the_record_is_bounded_and_keeps_the_latest(
    sizes: list[int], bytes_max: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ring")
    ring = Ring(folder, bytes_max)
    for size in sizes:
        ring.append(bytes(size))
        assert stored_bytes(folder) <= bytes_max + SEGMENTS * (max(sizes) + 16)
    kept = [sequence for sequence, _ in ring.read()]
    assert kept == list(range(kept[0], len(sizes) + 1))


@given(cut=st.integers(1, 60))
def test_a_torn_end_is_cut_off_and_the_record_goes_on(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ring")
    ring = Ring(folder, 10_000)
    for _ in range(3):
        ring.append(bytes(20))
    segment = next(folder.iterdir())
    segment.write_bytes(segment.read_bytes()[:-cut])
    again = Ring(folder, 10_000)
    whole = (108 - cut) // 36
    assert again.last_sequence == whole
    assert again.append(b"next") == whole + 1
    assert [sequence for sequence, _ in again.read()] == list(range(1, whole + 2))


@given(position=st.integers(0, 107), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_read_as_an_entry(
    position: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ring")
    ring = Ring(folder, 10_000)
    for number in range(3):
        ring.append(bytes([number]) * 20)
    segment = next(folder.iterdir())
    data = bytearray(segment.read_bytes())
    data[position] ^= 1 << bit
    segment.write_bytes(data)
    for sequence, payload in ring.read():
        assert payload == bytes([sequence - 1]) * 20
        assert sequence <= position // 36


def test_an_entry_that_the_disk_takes_half_of_is_refused_and_those_after_it_are_read(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring", 10_000)
    ring.append(bytes(20))
    with file_size_limit(50), pytest.raises(OSError, match="No space left"):
        ring.append(bytes(20))
    assert ring.append(b"later") == 2
    assert list(ring.read()) == [(1, bytes(20)), (2, b"later")]


@contextlib.contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """A write that crosses it writes what fits and says how much, like one on a disk that gets full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_entry_beyond_bounds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most"):
        Ring(tmp_path / "ring", 10_000).append(bytes(ENTRY_BYTES_MAX + 1))


def test_a_disk_that_refuses_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "ring"
    recorder = Recorder(folder, lambda: telemetry_pb2.Snapshot(profile_id="board"))
    recorder.record()
    folder.rename(tmp_path / "away")
    recorder.record()
    recorder.record()
    (tmp_path / "away").rename(folder)
    recorder.record()
    assert [record.getMessage()[:26] for record in caplog.records] == ["telemetry is not recorded:"]
    assert [(sequence, snapshot.profile_id) for sequence, snapshot in recorder.recorded(0)] == [
        (1, "board"), (2, "board"),
    ]  # fmt: skip


def test_a_board_that_can_not_be_measured_for_a_while_is_said_once_and_recorded_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faults = [OSError(24, "Too many open files"), RuntimeError("a bug")]

    def snapshot() -> telemetry_pb2.Snapshot:
        if faults:
            raise faults.pop()
        return telemetry_pb2.Snapshot(profile_id="board")

    recorder = Recorder(tmp_path / "ring", snapshot)
    for _ in range(3):
        recorder.record()
    assert [snapshot.profile_id for _, snapshot in recorder.recorded(0)] == ["board"]
    assert [record.getMessage() for record in caplog.records] == ["telemetry is not recorded: a bug"]

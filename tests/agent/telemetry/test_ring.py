from __future__ import annotations

import contextlib
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import OutsideError
from edgewright.v1 import telemetry_pb2
from edgewright_agent.telemetry.exporters.recorder import (
    HELD_BYTES,
    IDLE_KEEPS_ONE_IN,
    RECORD_SECONDS,
    Recorder,
)
from edgewright_agent.telemetry.exporters.ring import ENTRY_BYTES_MAX, SEGMENTS, Ring


def stored_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_entries_come_back_in_order_after_a_restart(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring", 10_000)
    given = [ring.append(f"entry {number}".encode()) for number in range(5)]
    assert given == list(range(given[0], given[0] + 5))
    again = Ring(tmp_path / "ring", 10_000)
    assert list(again.read(given[2])) == [(given[3], b"entry 3"), (given[4], b"entry 4")]
    assert again.append(b"more") == given[4] + 1


def test_a_number_that_a_reader_has_seen_is_not_given_again_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, on_disk = tmp_path / "ring", tmp_path / "after the power cut"
    on_disk.mkdir()

    def keep_what_is_synced(file: int) -> None:
        written = Path(f"/proc/self/fd/{file}").resolve()
        if written.is_file():
            shutil.copy(written, on_disk)

    ring = Ring(folder, 2_000)
    for _ in range(30):  # over several segments
        ring.append(bytes(40))
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", keep_what_is_synced)
        seen = [sequence for sequence, _ in ring.read()]
        for _ in range(3):
            ring.append(bytes(40))
    again = Ring(on_disk, 2_000)
    assert again.append(b"after it") > seen[-1]
    assert list(again.read(seen[-1])) == [(again.last_sequence, b"after it")]


def test_a_reader_of_a_folder_that_was_wiped_gets_all_that_was_recorded_since(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring", 100_000)
    for _ in range(50):
        seen = ring.append(b"before")
    shutil.rmtree(tmp_path / "ring")
    anew = Ring(tmp_path / "ring", 100_000)
    for _ in range(100):
        anew.append(b"since")
    assert [payload for _, payload in anew.read(seen)] == [b"since"] * 100


@settings(deadline=None)  # a busy machine is no fault
@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=80), bytes_max=st.integers(400, 4000))
def test_the_record_is_bounded_and_keeps_the_latest(
    sizes: list[int], bytes_max: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ring")
    ring = Ring(folder, bytes_max)
    last = 0
    for size in sizes:
        sequence = ring.append(bytes(size))
        assert sequence == last + 1 or not last
        last = sequence
        assert stored_bytes(folder) <= bytes_max + SEGMENTS * (max(sizes) + 16)
    kept = [sequence for sequence, _ in ring.read()]
    assert kept == list(range(kept[0], last + 1))


@settings(deadline=None)  # a busy machine is no fault
@given(cut=st.integers(1, 60))
def test_a_torn_end_is_cut_off_and_the_record_goes_on(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ring")
    ring = Ring(folder, 10_000)
    first, *_ = [ring.append(bytes(20)) for _ in range(3)]
    segment = next(folder.iterdir())
    segment.write_bytes(segment.read_bytes()[:-cut])
    again = Ring(folder, 10_000)
    whole = (108 - cut) // 36
    assert again.last_sequence == first + whole - 1
    assert again.append(b"next") == first + whole
    assert [sequence for sequence, _ in again.read()] == list(range(first, first + whole + 1))


@settings(deadline=None)  # a busy machine is no fault
@given(position=st.integers(0, 107), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_read_as_an_entry(
    position: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ring")
    ring = Ring(folder, 10_000)
    first, *_ = [ring.append(bytes([number]) * 20) for number in range(3)]
    segment = next(folder.iterdir())
    data = bytearray(segment.read_bytes())
    data[position] ^= 1 << bit
    segment.write_bytes(data)
    for sequence, payload in ring.read():
        assert payload == bytes([sequence - first]) * 20
        assert sequence - first < position // 36


def test_an_entry_that_the_disk_takes_half_of_is_refused_and_those_after_it_are_read(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "ring", 10_000)
    first = ring.append(bytes(20))
    with file_size_limit(50), pytest.raises(OSError, match="No space left"):
        ring.append(bytes(20))
    assert ring.append(b"later") == first + 1
    assert list(ring.read()) == [(first, bytes(20)), (first + 1, b"later")]


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


def test_a_disk_that_refuses_is_said_once_and_gets_it_all_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "ring"
    recorder = Recorder(folder, lambda: telemetry_pb2.Snapshot(profile_id="board"), held_seconds=0.0)
    recorder.record()
    first = recorder.last_sequence
    folder.rename(tmp_path / "away")
    for _ in range(5):
        recorder.record()
        recorder.look()
    (tmp_path / "away").rename(folder)
    recorder.record()
    assert [record.getMessage()[:26] for record in caplog.records] == ["telemetry is not recorded:"]
    assert [(sequence, snapshot.profile_id) for sequence, snapshot in recorder.recorded(0)] == [
        (first + number, "board") for number in range(7)
    ]


def test_a_full_disk_keeps_no_reader_from_what_is_on_it(tmp_path: Path) -> None:
    names = iter("abc")
    recorder = Recorder(tmp_path / "ring", lambda: telemetry_pb2.Snapshot(profile_id=next(names)))

    def read(after: int = 0) -> dict[int, str]:
        return {sequence: entry.profile_id for sequence, entry in recorder.recorded(after)}

    recorder.record()
    first = recorder.last_sequence
    with file_size_limit(stored_bytes(tmp_path / "ring")):
        recorder.record()
        recorder.record()
        assert read() == {first: "a"}
    assert read() == {first: "a", first + 1: "b", first + 2: "c"}
    assert read(first + 1) == {first + 2: "c"}


def test_a_record_that_can_t_be_opened_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "ring").touch()  # no folder
    recorder = Recorder(tmp_path / "ring", telemetry_pb2.Snapshot)
    with pytest.raises(OutsideError, match=r"ring could not be written: .* Check the disk"):
        next(recorder.recorded(0))


def test_a_disk_that_refuses_for_ever_costs_little_memory(tmp_path: Path) -> None:
    (tmp_path / "ring").touch()  # no folder
    recorder = Recorder(
        tmp_path / "ring", lambda: telemetry_pb2.Snapshot(profile_id="x" * 10_000), held_seconds=0.0
    )
    for _ in range(100):
        recorder.record()
    (tmp_path / "ring").unlink()
    assert len(list(recorder.recorded(0))) == 2 * HELD_BYTES // 10_003


def test_of_a_board_that_rests_one_snapshot_in_thirty_is_kept_and_of_a_busy_one_all(tmp_path: Path) -> None:
    serving = telemetry_pb2.Serving()
    recorder = Recorder(tmp_path / "ring", lambda: telemetry_pb2.Snapshot(serving=serving))
    for _ in range(1 + 2 * IDLE_KEEPS_ONE_IN):
        recorder.look()
    assert len(list(recorder.recorded(0))) == 3
    for _ in range(7):
        serving.requests += 1
        recorder.look()
    assert [entry.serving.requests for _, entry in recorder.recorded(0)] == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]


def test_a_resting_board_is_written_to_disk_twelve_times_a_day(tmp_path: Path) -> None:
    seconds = iter(range(0, 24 * 3600, int(RECORD_SECONDS)))
    now = [0.0]
    recorder = Recorder(
        tmp_path / "ring", lambda: telemetry_pb2.Snapshot(profile_id="x" * 1500), clock=lambda: now[0]
    )
    sizes = [0]
    for now[0] in seconds:
        recorder.look()
        size = stored_bytes(tmp_path / "ring") if (tmp_path / "ring").exists() else 0
        if size != sizes[-1]:
            sizes.append(size)
    assert len(sizes) - 1 <= 12
    assert sizes[-1] < 500_000
    assert len(list(recorder.recorded(0))) == 288


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

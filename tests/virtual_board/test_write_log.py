"""A log of writes gives the disks that a power cut may leave: what was flushed, and at most a part of the rest."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from virtual_board.power_cuts.store_check import Survives
from virtual_board.power_cuts.workload import Step, Timeline
from virtual_board.power_cuts.write_log import DISCARD, FLUSH, MAGIC, SECTOR, cuts, flush_ends

Entry = tuple[int, bytes, int]  # sector, data, flags
FLUSHED: Entry = (0, b"", FLUSH)


def entry(sector: int, letter: bytes) -> Entry:
    return sector, letter * SECTOR, 0


def write_log(file: Path, *entries: Entry, magic: int = MAGIC) -> Path:
    parts = [struct.pack("<QQQI", magic, 1, len(entries), SECTOR).ljust(SECTOR, b"\0")]
    for sector, data, flags in entries:
        sectors = 1 if flags & DISCARD else len(data) // SECTOR
        parts += [struct.pack("<QQQQ", sector, sectors, flags, 0).ljust(SECTOR, b"\0"), data]
    file.write_bytes(b"".join(parts))
    return file


def letters(image: Path) -> str:
    data = image.read_bytes()
    return "".join(chr(data[start] or ord(".")) for start in range(0, len(data), SECTOR))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    base.write_bytes(bytes(4 * SECTOR))
    return base


def test_writes_that_were_not_flushed_are_dropped_and_flushed_ones_stay(base: Path) -> None:
    log = write_log(
        base.with_name("log"),
        entry(0, b"a"),
        FLUSHED,
        entry(1, b"b"),
        entry(0, b"c"),
        FLUSHED,
        entry(2, b"d"),
    )
    dropped = [letters(cut.image) for cut in cuts(base, log, base.with_name("work")) if not cut.kept]
    assert dropped == ["....", "a...", "cb.."]


def test_a_part_of_the_writes_since_may_have_reached_the_disk(base: Path) -> None:
    log = write_log(base.with_name("log"), *(entry(sector, b"x") for sector in range(4)), FLUSHED)
    kept = {
        letters(cut.image)
        for seed in range(30)
        for cut in cuts(base, log, base.with_name("work"), seed=seed)
        if cut.kept and cut.log_end == SECTOR
    }
    assert len(kept) > 5
    assert all(set(image) <= {"x", "."} for image in kept)


def test_a_discard_leaves_zeros_and_has_no_data_in_the_log(base: Path) -> None:
    log = write_log(
        base.with_name("log"), entry(0, b"a"), FLUSHED, (0, b"", DISCARD), entry(1, b"b"), FLUSHED
    )
    *_, last = (letters(cut.image) for cut in cuts(base, log, base.with_name("work")))
    assert last == ".b.."


def test_what_a_caller_changes_is_not_in_the_next_disk(base: Path) -> None:
    log = write_log(base.with_name("log"), entry(0, b"a"), FLUSHED, entry(1, b"b"), FLUSHED)
    seen = []
    for cut in cuts(base, log, base.with_name("work")):
        if not cut.kept:
            seen.append(letters(cut.image))
        cut.image.write_bytes(b"!" * 4 * SECTOR)
    assert seen == ["....", "a...", "ab.."]


def test_flushes_are_found_and_some_can_be_left_out(base: Path) -> None:
    log = write_log(base.with_name("log"), *([entry(0, b"a"), FLUSHED] * 6))
    assert len(flush_ends(log)) == 1 + 6
    ends = {cut.log_end for cut in cuts(base, log, base.with_name("work"), every=3)}
    assert ends == {flush_ends(log)[number] for number in (0, 3, 6)}


def test_another_log_is_refused(base: Path) -> None:
    with pytest.raises(ValueError, match="magic 0x1"):
        flush_ends(write_log(base.with_name("log"), magic=1))


def test_a_cut_may_leave_the_step_before_it_or_the_one_under_way() -> None:
    def step(name: str, log_bytes: int) -> Step:
        return Step(name, log_bytes, Survives(name, 0))

    timeline = Timeline(
        [step("start", 512), step("push", 3000), step("roll-back", 5000)], [512, 2000, 4000, 5000]
    )
    assert [timeline.done(end) for end in (512, 2000, 4000, 5000)] == [0, 1, 1, 2]
    assert timeline.under_way(1) == "roll-back"
    assert [each.active for each in timeline.allowed(1)] == ["push", "roll-back"]

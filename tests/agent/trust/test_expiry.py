"""Documents expire by a clock that never runs backwards."""

from __future__ import annotations

import errno
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.durable import FileSystem
from edgewright.errors import RefusedError
from edgewright_agent.trust import Trust
from edgewright_agent.trust.clock import MonotoneClock
from tests.agent.trust.judging import Disk, at, check, reason_of
from tests.support.artifacts import make_artifact
from tests.support.trust_documents import (
    ISSUED,
    document,
    signed,
)


def test_an_expired_document_stages_nothing_until_it_is_renewed(tmp_path: Path) -> None:
    now = at(29)
    trust = Trust(document(1, expires=ISSUED + timedelta(days=30)), tmp_path, clock=lambda: now)
    check(trust, make_artifact())
    now = at(31)
    with pytest.raises(RefusedError, match=r"expired on 2026-12-01.*Renew it") as error:
        check(trust, make_artifact())
    assert reason_of(error) == "TRUST_EXPIRED"
    trust.update([signed(2, issued=ISSUED + timedelta(days=31), expires=ISSUED + timedelta(days=60))])
    check(trust, make_artifact())


def test_a_clock_set_back_does_not_revive_an_expired_document(tmp_path: Path) -> None:
    now = at(31)
    base = document(1, expires=ISSUED + timedelta(days=30))
    assert "expired" in Trust(base, tmp_path, clock=lambda: now).problem
    now = at(1)
    assert "expired" in Trust(base, tmp_path, clock=lambda: now).problem  # also after a restart


def test_a_clock_that_once_ran_ahead_is_repaired_by_the_next_document(tmp_path: Path) -> None:
    now = at(5000)
    trust = Trust(document(1, expires=ISSUED + timedelta(days=30)), tmp_path, clock=lambda: now)
    assert "expired" in trust.problem
    now = at(2)
    trust.update([signed(2, issued=ISSUED + timedelta(days=2), expires=ISSUED + timedelta(days=30))])
    assert trust.problem == ""
    assert trust.now() == ISSUED + timedelta(days=2)


@given(st.lists(st.floats(0, 2e9), min_size=1, max_size=30))
def test_the_clock_never_runs_backwards(times: list[float]) -> None:
    ticks = iter(times)
    clock = MonotoneClock(FileSystem(), None, lambda: next(ticks))
    seen: list[datetime] = [clock.now() for _ in times]
    assert seen == sorted(seen)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe", b"9" * 400])
def test_a_damaged_clock_file_stops_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clock").write_bytes(content)
    assert MonotoneClock(FileSystem(), tmp_path / "clock", lambda: 1.8e9).now().year >= 2027


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_of_the_clock_file_does_not_set_the_clock(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "clock"
    path.unlink(missing_ok=True)
    MonotoneClock(FileSystem(), path, lambda: 1.9e9).now()
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert MonotoneClock(FileSystem(), path, lambda: 1.8e9).now().timestamp() == 1.9e9
    path.write_bytes(content)
    assert MonotoneClock(FileSystem(), path, lambda: 1.8e9).now().timestamp() == 1.8e9


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_no_writes_stops_no_clock_and_the_time_is_written_once_it_does(
    tmp_path: Path, error: int
) -> None:
    now, disk = at(1), Disk()
    trust = Trust(document(1, expires=ISSUED + timedelta(days=30)), tmp_path, fs=disk, clock=lambda: now)
    trust.now()
    now, disk.error = at(31), error
    assert trust.now() == ISSUED + timedelta(days=31)
    assert "expired" in trust.problem
    disk.error = 0
    trust.now()
    now = at(1)
    assert "expired" in Trust(trust.document, tmp_path, clock=lambda: now).problem


def test_a_clock_that_a_document_set_back_on_a_full_disk_is_written_later(tmp_path: Path) -> None:
    now, disk = at(5000), Disk()
    clock = MonotoneClock(disk, tmp_path / "clock", lambda: now)
    clock.now()
    now, disk.error = at(2), errno.ENOSPC
    clock.reset(ISSUED)
    assert clock.now() == ISSUED + timedelta(days=2)
    disk.error = 0
    clock.now()
    assert MonotoneClock(disk, tmp_path / "clock", lambda: now).now() == ISSUED + timedelta(days=2)

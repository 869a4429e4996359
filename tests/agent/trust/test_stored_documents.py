"""What a board keeps of its trust on the disk, through full disks, damage and power cuts."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.durable import FileSystem
from edgewright.errors import OutsideError, RefusedError
from edgewright_agent.trust import Trust
from tests.agent.trust.judging import BOTH, Disk, check, reason_of
from tests.support.artifacts import make_artifact
from tests.support.trust_documents import (
    NEW_RELEASE,
    document,
    revocation,
    signed,
)


def test_an_accepted_document_survives_a_restart(tmp_path: Path) -> None:
    Trust(document(1), tmp_path).update([signed(2, release=BOTH, revoked=[revocation()])])
    again = Trust(document(1), tmp_path)
    assert again.document is not None
    assert again.document.version == 2
    with pytest.raises(RefusedError):
        check(again, make_artifact())


def test_a_newer_document_given_at_the_start_counts_and_an_older_one_does_not(tmp_path: Path) -> None:
    Trust(document(1), tmp_path).update([signed(3)])
    found = [Trust(document(version), tmp_path).document for version in (2, 4)]
    assert [each.version for each in found if each is not None] == [3, 4]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_document_damaged_on_the_disk_never_makes_an_older_one_count(
    tmp_path: Path, data: st.DataObject
) -> None:
    newer = signed(2, release=BOTH, revoked=[revocation()])
    path = tmp_path / "00000002.json"
    Trust(document(1), tmp_path / "fresh")
    tmp_path.joinpath("clock").unlink(missing_ok=True)
    content = bytearray(newer)
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    trust = Trust(document(1), tmp_path)
    assert "damaged" in trust.problem
    with pytest.raises(RefusedError):
        check(trust, make_artifact())  # which version 1 would let pass
    assert trust.update([newer]).version == 2
    check(trust, make_artifact(key=NEW_RELEASE))


def test_a_damaged_document_is_not_mended_by_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "00000005.json").write_bytes(b"{}")
    with pytest.raises(RefusedError, match="had 5 before it was damaged"):
        Trust(document(1), tmp_path).update([signed(2), signed(4)])


def test_a_document_that_the_disk_has_no_room_for_is_in_force_and_is_kept_when_it_is_sent_again(
    tmp_path: Path,
) -> None:
    disk, revoking = Disk(), signed(2, release=BOTH, revoked=[revocation()])
    trust = Trust(document(1), tmp_path, fs=disk)
    disk.error = errno.ENOSPC
    for _ in range(2):
        with pytest.raises(
            OutsideError, match=r"in force but could not be kept.*Then send it again"
        ) as error:
            trust.update([revoking])
        assert reason_of(error) == "DISK_SPACE"
        assert trust.document is not None
        assert trust.document.version == 2
        assert "could not be kept" in trust.problem
        with pytest.raises(OutsideError, match="could not be kept"):
            check(trust, make_artifact(key=NEW_RELEASE))
    disk.error = 0
    with pytest.raises(RefusedError, match="trust never goes back"):
        trust.update([signed(2, release=BOTH)])
    assert trust.update([revoking]).version == 2
    again = Trust(document(1), tmp_path).document
    assert again == trust.document
    with pytest.raises(RefusedError, match="trust never goes back"):
        trust.update([revoking])


def test_a_document_that_was_not_kept_is_followed_by_a_newer_one_and_kept_by_itself_once_there_is_room(
    tmp_path: Path,
) -> None:
    disk = Disk()
    trust = Trust(document(1), tmp_path, fs=disk)
    disk.error = errno.EROFS
    for version in (2, 3):
        with pytest.raises(OutsideError, match="could not be kept"):
            trust.update([signed(version)])
    disk.error = 0
    assert trust.problem == ""  # which `edgewright keys trust` asks for first
    again = Trust(document(1), tmp_path).document
    assert again is not None
    assert again.version == 3


class PowerCutError(Exception):
    pass


class CutFileSystem(FileSystem):
    """Loses power before the n-th call that changes the disk."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def _spend(self) -> None:
        if self.left == 0:
            raise PowerCutError
        self.left -= 1

    def write(self, file: int, data: Any, offset: int) -> None:
        self._spend()
        super().write(file, data, offset)

    def rename(self, source: Path, target: Path) -> None:
        self._spend()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._spend()
        super().unlink(path)


@pytest.mark.parametrize("calls", range(8))
def test_a_power_cut_during_an_update_leaves_the_old_document_or_the_new(tmp_path: Path, calls: int) -> None:
    Trust(document(1), tmp_path).update([signed(2)])
    trust = Trust(document(1), tmp_path, fs=CutFileSystem(calls))
    try:
        trust.update([signed(3)])
    except PowerCutError:
        pass
    else:
        assert calls > 3, "the cut came never: the test tests nothing"
    again = Trust(document(1), tmp_path)
    assert again.problem == ""
    assert again.document is not None
    assert again.document.version in (2, 3)

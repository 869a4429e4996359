"""The doctor on the store's disk."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgewright_agent.doctor import checks
from edgewright_agent.doctor.finding import Finding, Severity
from tests.agent.doctor.subjects import (
    NOBODY,
    as_root,
    finding_of,
    somebody_else,
    subject,
)
from tests.fixtures.boards import write


def test_a_store_on_a_disk_that_forgets_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, "proc/mounts", f"/dev/sda1 / ext4 rw 0 0\ntmpfs {tmp_path.resolve()} tmpfs rw 0 0")
    finding = finding_of("file system", subject(tmp_path, store=tmp_path / "store"))
    assert finding.result is Severity.PROBLEM
    assert "gone at the next boot" in finding.sentence


@pytest.mark.parametrize("store", ["file", "file/store", "nowhere"])
def test_what_is_no_folder_where_the_store_should_be_is_a_problem(store: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    finding = finding_of("file system", subject(tmp_path, store=tmp_path / store))
    assert finding.result is Severity.PROBLEM
    assert f"{tmp_path / store.partition('/')[0]} is no folder" in finding.sentence


def test_a_store_that_is_to_be_is_looked_for_where_it_will_be(tmp_path: Path) -> None:
    what = subject(tmp_path, store=tmp_path / "not" / "yet" / "there")
    assert finding_of("store", what).result is Severity.OK
    assert "is not there yet and can be made" in finding_of("store", what).sentence
    assert checks.CHECKS["disk speed"](what) is None  # not tried in what may be anybody's folder
    assert not (tmp_path / "not").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_can_not_be_made_is_asked_for_and_no_folder_above_it(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    store = open_folder / "edgewright" / "store"
    with somebody_else():
        finding = finding_of("store", subject(open_folder, store=store))
    assert finding.result is Severity.PROBLEM
    assert f"{store} is not there yet, and this user can't make it" in finding.sentence
    assert f"`sudo install -d -o USER -m 700 {store}`" in finding.remedy
    assert "chown" not in finding.remedy


@as_root
def test_root_asks_whether_the_store_s_user_may_write_it(open_folder: Path) -> None:
    store = open_folder / "store"
    store.mkdir(mode=0o700)
    os.chown(store, NOBODY, NOBODY)
    finding = finding_of("store", subject(open_folder, store=store))
    assert finding == Finding(Severity.OK, f"{store} can be written by its user, {NOBODY}, and fsync works.")
    assert finding_of("disk speed", subject(open_folder, store=store)).sentence.startswith("The disk writes")
    assert list(store.iterdir()) == []
    store.chmod(0o500)
    finding = finding_of("store", subject(open_folder, store=store))
    assert (finding.result, "mode is 0500" in finding.sentence) == (Severity.PROBLEM, True)
    assert finding.remedy == f"`sudo chmod 700 {store}`"


@pytest.mark.parametrize(
    ("free_bytes", "inodes", "result", "says"),
    [
        (2**28, 10**6, "problem", "256 MiB are free"),
        (2**30, 10**6, "warning", "less than most models take"),
        (2**34, 12, "problem", "12 inodes are left"),
        (2**34, 10**6, "ok", "16.0 GiB are free"),
        (2**34, 0, "ok", "16.0 GiB are free"),  # btrfs counts no inodes
    ],
)
def test_a_disk_without_space_or_inodes_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, inodes: int, result: str, says: str
) -> None:
    found_there = SimpleNamespace(f_bavail=free_bytes // 4096, f_frsize=4096, f_favail=inodes)
    monkeypatch.setattr("edgewright_agent.doctor.disk.os.statvfs", lambda _: found_there)
    finding = finding_of("disk space", subject(tmp_path, store=tmp_path))
    assert (finding.result, says in finding.sentence) == (Severity(result), True)


def test_what_was_found_corrupt_is_a_problem(tmp_path: Path) -> None:
    what = subject(tmp_path, store=tmp_path)
    assert finding_of("quarantine", what).result is Severity.OK
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine" / ("ab" * 32 + ".1")).write_bytes(b"rot")
    finding = finding_of("quarantine", what)
    assert finding.result is Severity.PROBLEM
    assert "1 stored file" in finding.sentence
    assert "replace it" in finding.remedy


def test_a_read_only_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr("edgewright_agent.doctor.disk.FileSystem.create", refuse)
    finding = finding_of("store", subject(tmp_path, store=tmp_path))
    assert "is read-only" in finding.sentence
    assert "dmesg" in finding.remedy


@pytest.mark.parametrize("measured", [(1e6, 0.01), (1e8, 2.0)])
def test_a_slow_disk_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: tuple[float, float]
) -> None:
    monkeypatch.setattr("edgewright_agent.doctor.disk._measure", lambda _: measured)
    assert finding_of("disk speed", subject(tmp_path, store=tmp_path)).result is Severity.WARNING

"""Checks that the store will hold what is sent, and keep it through a power cut."""

from __future__ import annotations

import errno
import os
import stat
import statistics
import time
from pathlib import Path

from edgewright.durable import FileSystem, write_durably
from edgewright_agent.doctor.access import ask_for_root
from edgewright_agent.doctor.finding import Finding, Subject, ok, problem, warning
from edgewright_agent.store.files.layout import Layout
from edgewright_agent.telemetry.collectors.sysfs import read_text

RESERVE_BYTES = 512 * 2**20  # the agent's default --store-reserve
ROOM_BYTES = 2 * 2**30
INODES_MIN = 10_000
TRIAL_BYTES = 16 * 2**20
SLOW_BYTES_PER_SECOND = 5e6  # an SD card of class 4
SLOW_SYNC_SECONDS = 0.25
TRIAL_NAME = "doctor.trial"
# Gone at reboot, or without hard links or rename as the store needs them.
UNFIT = {
    "tmpfs": "it is memory, and gone at the next boot",
    "ramfs": "it is memory, and gone at the next boot",
    "vfat": "it has no hard links",
    "exfat": "it has no hard links",
    "nfs": "a network's fsync promises nothing",
    "nfs4": "a network's fsync promises nothing",
    "cifs": "a network's fsync promises nothing",
}


def store_is_on_a_disk(subject: Subject) -> Finding | None:
    """Checks that the store's file system keeps what is written and has hard links."""
    if subject.store is None:
        return None
    if (blocked_by := _no_folder(subject.store)) is not None:
        return problem(
            f"{blocked_by} is no folder, and the store {subject.store} needs one there.",
            "Choose another --store, or move that away.",
        )
    kind, mount = file_system(subject.root, _existing(subject.store))
    if kind in UNFIT:
        return problem(
            f"The store {subject.store} lies on {kind} ({mount}): {UNFIT[kind]}.",
            "Put it on a local ext4, xfs, btrfs or f2fs disk with --store.",
        )
    return ok(f"The store lies on {kind} ({mount}).") if kind else None


def _no_folder(store: Path) -> Path | None:
    """Returns the store's path, or the part of it, where something else than a folder is."""
    return next(
        (path for path in (store, *store.parents) if os.path.lexists(path) and not path.is_dir()), None
    )


def disk_has_room(subject: Subject) -> Finding | None:
    """Checks that there is space, and that there are inodes."""
    if subject.store is None:
        return None
    folder = _existing(subject.store)
    found = os.statvfs(folder)
    free_bytes, inodes = found.f_bavail * found.f_frsize, found.f_favail
    remedy = (
        "Delete releases (`edgewright releases HOST --delete DIGEST`, or `edgewright gc HOST --releases`), or what "
        f"`sudo du -xh --max-depth 2 {folder}` shows."
    )
    if free_bytes < RESERVE_BYTES:
        return problem(
            f"{free_bytes / 2**20:.0f} MiB are free at {folder}; the agent leaves 512 alone.", remedy
        )
    if 0 < inodes < INODES_MIN:
        return problem(
            f"{inodes} inodes are left at {folder}: files can't be made though there is space.", remedy
        )
    if free_bytes < ROOM_BYTES:
        return warning(
            f"{free_bytes / 2**30:.1f} GiB are free at {folder}, less than most models take.", remedy
        )
    return ok(f"{free_bytes / 2**30:.1f} GiB are free at {folder}.")


def nothing_has_rotted(subject: Subject) -> Finding | None:
    """Checks that nothing in the store was found corrupt."""
    if subject.store is None:
        return None
    quarantine = Layout(subject.store).quarantine
    closed = ask_for_root(subject, [quarantine])
    if closed is not None:
        return closed
    found = sorted(quarantine.iterdir()) if quarantine.is_dir() else []
    if not found:
        return ok("Nothing in the store was found corrupt.")
    return problem(
        f"{len(found)} stored file(s) no longer matched their digest, the first {found[0].name[:20]}….",
        f"Push what is missing again, and remove them with `edgewright gc HOST --quarantine`. If it happens again, "
        f"the disk under {subject.store} is failing: replace it.",
    )


def store_can_be_written(subject: Subject) -> Finding | None:
    """Checks that whoever runs this may write the store durably; if root runs it, that the store's owner may."""
    if subject.store is None:
        return None
    folder = _existing(subject.store)
    try:
        write_durably(FileSystem(), folder / TRIAL_NAME, b"trial")
        (folder / TRIAL_NAME).unlink()
    except Exception as error:  # noqa: BLE001 - whatever the disk says is the finding
        return _unwritable(subject.store, folder, error)
    if folder != subject.store:
        return ok(
            f"{subject.store} is not there yet and can be made: {folder} can be written, and fsync works."
        )
    return _owner_may_write(folder) if os.geteuid() == 0 else ok(f"{folder} can be written, and fsync works.")


def _owner_may_write(folder: Path) -> Finding:
    """Checks the owner: root may write anything, and the agent runs as the store's owner."""
    found = folder.stat()
    if found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        return problem(
            f"{folder} belongs to user {found.st_uid}, who may not write it: its mode is {found.st_mode & 0o7777:04o}.",
            f"`sudo chmod 700 {folder}`",
        )
    return ok(f"{folder} can be written by its user, {found.st_uid}, and fsync works.")


def _unwritable(store: Path, folder: Path, error: Exception) -> Finding:
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else None
    if cause is not None and cause.errno == errno.EROFS:
        remedy = "Look why in `dmesg | grep -i -e ext4 -e mmc -e nvme`; then `sudo mount -o remount,rw`."
        return problem(f"{folder} is read-only; the kernel does that when a disk fails.", remedy)
    if folder != store:  # which is not the agent's to have
        return problem(
            f"{store} is not there yet, and this user can't make it: {error}",
            f"Make it, with the agent's user for USER: `sudo install -d -o USER -m 700 {store}`.",
        )
    return problem(
        f"{folder} can't be written: {error}",
        f"Give it to the agent's user: `sudo chown -R USER {folder}`.",
    )


def disk_is_fast(subject: Subject) -> Finding | None:
    """Measures 16 MiB and five small files, each with fsync, in a store that exists."""
    if subject.store is None or not subject.store.is_dir():
        return None
    try:
        rate, sync_seconds = _measure(subject.store / TRIAL_NAME)
    except OSError:
        return None  # store_can_be_written has said why
    found = f"The disk writes {rate / 1e6:.0f} MB/s, and fsync takes {1000 * sync_seconds:.0f} ms"
    if rate < SLOW_BYTES_PER_SECOND or sync_seconds > SLOW_SYNC_SECONDS:
        return warning(
            f"{found}: a push and every activation will wait for it.", "Put the store on NVMe or eMMC."
        )
    return ok(f"{found}.")


def file_system(root: Path, folder: Path) -> tuple[str, str]:
    """Returns kind and mount point of the file system that holds `folder`, by `/proc/mounts`; empty if unknown."""
    best = ("", "")
    for line in (read_text(root / "proc/mounts") or "").splitlines():
        fields = line.split()
        if len(fields) >= 3 and folder.resolve().is_relative_to(fields[1].replace("\\040", " ")):
            best = max(best, (fields[2], fields[1]), key=lambda entry: len(entry[1]))
    return best


def _measure(trial: Path) -> tuple[float, float]:
    """Returns bytes per second, and the median seconds of a small write with fsync."""
    fs, data = FileSystem(), os.urandom(TRIAL_BYTES)
    trial.unlink(missing_ok=True)
    file = fs.create(trial)
    try:
        began = time.monotonic()
        fs.write(file, data, 0)
        fs.sync_data(file)
        rate = TRIAL_BYTES / max(time.monotonic() - began, 1e-9)
        small = []
        for _ in range(5):
            began = time.monotonic()
            fs.write(file, data[:4096], 0)
            fs.sync_file(file)
            small.append(time.monotonic() - began)
    finally:
        fs.close(file)
        trial.unlink(missing_ok=True)
    return rate, statistics.median(small)


def _existing(folder: Path) -> Path:
    """Returns the folder, or the nearest above it that exists."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder

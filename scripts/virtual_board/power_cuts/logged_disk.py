"""A file system on a disk that QEMU serves through FUSE and logs: the kernel's own ext4 or btrfs, and no emulation."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from virtual_board.initrd import sbin
from virtual_board.needs import NeedError

DISK_BYTES = 64 * 2**20
# By name: what makes the file system, and how it is mounted.
FILE_SYSTEMS = {
    "ext4": (("mkfs.ext4", "-q"), "data=ordered"),
    "ext4-writeback": (("mkfs.ext4", "-q"), "data=writeback"),
    "btrfs": (("mkfs.btrfs", "-q", "--mixed"), ""),
}


@dataclass(frozen=True)
class LoggedDisk:
    """The folder where it is mounted, the log of its writes, and the disk as it was before the first."""

    mounted: Path
    log: Path
    base: Path

    def logged_bytes(self) -> int:
        """Returns how long the log is now."""
        return self.log.stat().st_size


@contextlib.contextmanager
def logged_disk(folder: Path, file_system: str) -> Iterator[LoggedDisk]:
    """Makes the file system in `folder` and mounts it, for as long as the block runs. Needs root."""
    make, options = FILE_SYSTEMS[file_system]
    disk = LoggedDisk(folder / "mounted", folder / "writes", folder / "base")
    data, served = folder / "data", folder / "served"
    with data.open("wb") as file:
        file.truncate(DISK_BYTES)
    _must(*make, str(data))
    shutil.copyfile(data, disk.base)
    disk.log.touch()
    served.touch()
    disk.mounted.mkdir()
    server = _serve(data, disk.log, served)
    try:
        with mounted(served, disk.mounted, options):
            yield disk
    finally:
        server.terminate()
        server.wait()


def _serve(data: Path, log: Path, served: Path) -> subprocess.Popen[bytes]:
    server = subprocess.Popen(
        [
            "qemu-storage-daemon",
            "--blockdev", f"driver=raw,node-name=data,file.driver=file,file.filename={data}",
            "--blockdev", f"driver=blklogwrites,node-name=logged,file=data,log.driver=file,log.filename={log}",
            "--export", f"type=fuse,id=served,node-name=logged,mountpoint={served},writable=on",
        ]
    )  # fmt: skip
    until = time.monotonic() + 30
    while served.stat().st_size != DISK_BYTES:
        if server.poll() is not None or time.monotonic() > until:
            raise NeedError(
                "qemu-storage-daemon does not serve the disk: sudo apt install qemu-system-common fuse3"
            )
        time.sleep(0.05)
    return server


@contextlib.contextmanager
def mounted(image: Path, folder: Path, options: str) -> Iterator[Path]:
    """Mounts a disk while the block runs. Raises NeedError where the kernel refuses it.

    The loop device has a cache, as a disk has: what is not flushed is lost. (Its direct I/O to QEMU 7.2's FUSE export
    reads other bytes than it wrote.)
    """
    loop = _must("losetup", "--find", "--show", str(image)).strip()
    try:
        _must("mount", *(["-o", options] if options else []), loop, str(folder))
        try:
            yield folder
        finally:
            _must("umount", str(folder))
    finally:
        _must("losetup", "--detach", loop)


def _must(*command: str) -> str:
    done = subprocess.run(command, env=sbin(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise NeedError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-300:]}")
    return done.stdout

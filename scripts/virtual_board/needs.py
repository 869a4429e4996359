"""What the host must have before a board can be built; each lack is one sentence that says what to install."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from virtual_board.settings import DISK_BYTES, MEMORY_MIB, cache_folder

PROGRAMS = {
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "mke2fs": "e2fsprogs",
    "depmod": "kmod",
    "cpio": "cpio",
}
# What some commands need besides.
MORE_PROGRAMS = {
    "qemu-aarch64-static": "qemu-user-static",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.f2fs": "f2fs-tools",
    "mkfs.btrfs": "btrfs-progs",
    "qemu-storage-daemon": "qemu-system-common",
    "fusermount3": "fuse3",
}
BINFMT = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")


class NeedError(Exception):
    """Something is missing on this machine; the message says what to do."""


def check_needs() -> None:
    """Raises NeedError with all that is missing."""
    missing = list(_missing())
    if missing:
        raise NeedError("\n".join(missing))


def check_programs(*names: str) -> None:
    """Raises NeedError that names the packages of those programs that are missing."""
    if lacking := _lacking(names):
        raise NeedError(_install(lacking))


def check_root() -> None:
    """Raises NeedError unless this process may mount disks."""
    if os.geteuid():
        raise NeedError("Disks are mounted for this: run it as root, such as `sudo make test-cuts`.")


def _lacking(names: Iterable[str]) -> list[str]:
    packages = PROGRAMS | MORE_PROGRAMS
    return sorted({packages[name] for name in names if not _which(name)})


def _install(packages: list[str]) -> str:
    return f"The virtual board needs packages: sudo apt install {' '.join(packages)}"


def _missing() -> Iterator[str]:
    lacking = _lacking(PROGRAMS)
    if os.geteuid() and not _which("fakeroot"):
        lacking.append("fakeroot")
    if lacking:
        yield _install(lacking)
    if not BINFMT.exists():
        yield (
            "This kernel does not run ARM programs yet: sudo apt install qemu-user-static binfmt-support, "
            "then sudo update-binfmts --enable qemu-aarch64"
        )
    folder = next(path for path in (cache_folder(), *cache_folder().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < DISK_BYTES:
        yield (
            f"{folder} has {free / 2**30:.1f} GiB free, a build and a run take {DISK_BYTES / 2**30:.0f}: "
            "make room, or name another folder in EDGEWRIGHT_VIRTUAL_BOARD."
        )
    available = _available_mib()
    if available < MEMORY_MIB + 512:
        yield f"{available} MiB of memory are available, the board takes {MEMORY_MIB + 512}: close something."


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _available_mib() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:"))

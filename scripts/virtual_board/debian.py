"""Debian for arm64: a configured root, and a kernel, from packages alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from virtual_board.needs import NeedError
from virtual_board.settings import SUITE, Parts

# A small system as a vendor ships it: systemd, udev, Python. `python3-venv` is what docs/boards.md installs.
INCLUDED = (
    "systemd", "systemd-sysv", "udev", "dbus", "kmod", "iproute2", "procps", "e2fsprogs", "python3-venv", "libgomp1",
)  # fmt: skip
LEFT_OUT = ("man", "doc", "locale", "info")
# As docs/boards.md says: a user of its own, and a virtual environment in /opt.
HOOKS = (
    'chroot "$1" useradd --system --home-dir /var/lib/edgewright --shell /usr/sbin/nologin edgewright',
    'chroot "$1" python3 -m venv --without-pip /opt/edgewright',
    'chroot "$1" systemctl enable systemd-networkd',
)
# Packages that are unpacked and not configured have no links for merged folders.
MERGED = (
    'mkdir -p "$1"/usr/bin "$1"/usr/sbin "$1"/usr/lib; for f in bin sbin lib; do ln -s usr/$f "$1"/$f; done'
)


def build_root(parts: Parts) -> None:
    """Installs and configures Debian under emulation. Minutes, and the longest step of a build."""
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    hooks = [f"--customize-hook={hook}" for hook in HOOKS]
    _mmdebstrap(parts.root, "minbase", INCLUDED, ["--dpkgopt=force-unsafe-io", *options, *hooks])


def unpack_kernel(parts: Parts) -> None:
    """Unpacks Debian's newest kernel of the suite, and a static busybox for the initrd."""
    shutil.rmtree(parts.kernel, ignore_errors=True)
    _mmdebstrap(parts.kernel, "extract", ("linux-image-arm64", "busybox-static"), [f"--setup-hook={MERGED}"])


def unpack_headers(target: Path, kernel_version: str) -> None:
    """Unpacks what modules for that kernel are compiled with."""
    _mmdebstrap(target, "extract", (f"linux-headers-{kernel_version}",), [f"--setup-hook={MERGED}"])


def unpack_programs(target: Path, suite: str) -> None:
    """Unpacks a suite's Python and what wheels link to: for programs of ARM that run without a board."""
    libraries = ("python3", "libstdc++6", "libgomp1", "libffi8", "libssl3", "media-types")
    _mmdebstrap(target, "extract", libraries, [f"--setup-hook={MERGED}"], suite)


def scratch_folder(other: Path) -> Path:
    """Returns a folder in memory where there is room; dpkg waits for the disk after each file, minutes in all."""
    memory = Path("/dev/shm")  # noqa: S108 - mmdebstrap makes a folder of its own there
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 2 * 2**30 else other


def _mmdebstrap(
    target: Path, variant: str, packages: tuple[str, ...], options: list[str], suite: str = SUITE
) -> None:
    part = target.with_name(f"part-{target.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.unlink(missing_ok=True)
    command = [
        "mmdebstrap", "--arch=arm64", f"--variant={variant}", f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"', *options, suite, str(part),
    ]  # fmt: skip
    log = target.with_name(f"{target.name}.log")
    with log.open("w", encoding="utf-8") as out:
        done = subprocess.run(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(scratch_folder(target.parent))},
            check=False,
        )
    if done.returncode:
        last = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("E:")] or [
            ""
        ]
        raise NeedError(f"Debian's packages could not be installed ({last[0]}); {log} has all of it.")
    part.replace(target)

"""An initrd of two megabytes: the modules that a virtio disk needs, and a script that mounts it."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from virtual_board.settings import Parts

DISK_MODULES = ("virtio_pci", "virtio_mmio", "virtio_blk", "ext4", "crc32c_generic")
INIT = """#!/bin/sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
while read -r module; do $b insmod /modules/$module; done < /modules/order
while [ ! -b /dev/vda ]; do $b sleep 0.1; done
$b mount -t ext4 /dev/vda /root || exec $b sh
$b mount --move /dev /root/dev; $b umount /sys; $b umount /proc
exec $b switch_root /root /sbin/init
"""


def build_initrd(parts: Parts) -> None:
    """Writes the initrd."""
    with tempfile.TemporaryDirectory(dir=parts.folder) as scratch:
        tree = Path(scratch)
        for name in ("bin", "modules", "dev", "proc", "sys", "root"):
            (tree / name).mkdir()
        shutil.copy(parts.kernel / "usr/bin/busybox", tree / "bin/busybox")
        (tree / "bin/sh").symlink_to("busybox")
        order = modules_in_order(parts, DISK_MODULES)
        for module in order:
            shutil.copy(module, tree / "modules" / module.name)
        (tree / "modules/order").write_text("".join(f"{module.name}\n" for module in order), encoding="ascii")
        init = tree / "init"
        init.write_text(INIT, encoding="ascii")
        init.chmod(0o755)
        names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
        archive = subprocess.run(
            ["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0"],
            input=names.encode(), cwd=tree, capture_output=True, check=True,
        )  # fmt: skip
        parts.initrd.write_bytes(gzip.compress(archive.stdout, 1))


def modules_in_order(parts: Parts, names: tuple[str, ...]) -> list[Path]:
    """Returns the modules and what they need, each after what it needs."""
    subprocess.run(["depmod", "-b", str(parts.kernel), parts.kernel_version], env=sbin(), check=True)
    order: dict[Path, None] = {}
    for name in names:
        shown = subprocess.run(
            ["modprobe", "-d", str(parts.kernel), "-S", parts.kernel_version, "--show-depends", name],
            env=sbin(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        for line in shown.stdout.splitlines():
            if line.startswith("insmod "):
                order.setdefault(Path(line.split()[1]))
    return list(order)


def sbin() -> dict[str, str]:
    """Returns an environment in which programs of the system's folder are found."""
    return dict(os.environ) | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}

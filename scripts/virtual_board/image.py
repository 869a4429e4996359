"""The board's disk: Debian, modules, the agent, and what lets the host in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from virtual_board.initrd import sbin
from virtual_board.settings import PYTHON, ROOM_BYTES, SOURCES, Parts

GUEST = Path(__file__).parent / "guest"
STORE_CHECK = Path(__file__).parent / "power_cuts/store_check.py"
MODULES = (
    "fs/ext4", "fs/jbd2", "fs/mbcache.ko", "fs/btrfs", "fs/f2fs", "fs/nls", "fs/autofs", "fs/fuse", "fs/binfmt_misc.ko",
    "drivers/virtio",
    "drivers/block/virtio_blk.ko", "drivers/block/loop.ko", "drivers/net/virtio_net.ko", "drivers/net/net_failover.ko",
    "net/core/failover.ko", "drivers/char/virtio_console.ko", "drivers/char/hw_random", "drivers/i2c", "drivers/hwmon",
    "drivers/md", "drivers/dax", "drivers/base/regmap", "crypto", "lib", "arch/arm64/crypto",
)  # fmt: skip
FSTAB = "/dev/vda / ext4 defaults 0 1\nLABEL=data /var/lib/edgewright auto defaults,nofail 0 2\n"


def build_image(parts: Parts) -> None:
    """Writes the disk. Its files belong to root, so this runs as root, or as one that `fakeroot` makes up."""
    as_root = [] if os.geteuid() == 0 else ["fakeroot"]
    command = [*as_root, sys.executable, "-m", "virtual_board.image", str(parts.folder)]
    subprocess.run(command, env=sbin() | {"PYTHONPATH": str(SOURCES / "scripts")}, check=True)


def write_image(parts: Parts) -> None:
    """Puts the root together in a scratch folder and makes a file system of it."""
    with tempfile.TemporaryDirectory(dir=parts.folder) as scratch:
        root = Path(scratch)
        root.chmod(0o755)  # and so will / be
        subprocess.run(["tar", "-xf", parts.root, "--exclude=./dev/*", "-C", root], check=True)
        _copy_modules(parts, root / "usr/lib/modules" / parts.kernel_version)
        for module in (parts.folder / "sensors").glob("*.ko"):
            shutil.copy(module, root / "usr/lib/modules" / parts.kernel_version)
        subprocess.run(["depmod", "-b", root / "usr", parts.kernel_version], check=True)
        _copy_agent(parts, root / "opt/edgewright")
        _let_the_host_in(root)
        size = sum(path.lstat().st_size for path in root.rglob("*")) + ROOM_BYTES
        part = parts.image.with_name("part.img")
        part.unlink(missing_ok=True)
        make = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(root), str(part), str(size // 1024)]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        part.replace(parts.image)


def _copy_modules(parts: Parts, target: Path) -> None:
    source = parts.kernel / "usr/lib/modules" / parts.kernel_version
    for name in MODULES:
        for file in (
            [source / "kernel" / name] if name.endswith(".ko") else (source / "kernel" / name).rglob("*.ko")
        ):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    for file in source.glob("modules.*"):
        shutil.copy(file, target / file.name)


def _copy_agent(parts: Parts, venv: Path) -> None:
    """Fills the virtual environment that the root has, and takes the scripts to its `bin`."""
    shutil.copytree(
        parts.packages, venv / f"lib/python{PYTHON}/site-packages", dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("bin", "__pycache__"),
    )  # fmt: skip
    for script in (parts.packages / "bin").iterdir():
        shutil.copy(script, venv / "bin" / script.name)


def _let_the_host_in(root: Path) -> None:
    (root / "etc/hostname").write_text("virtual-board\n", encoding="ascii")
    (root / "etc/fstab").write_text(FSTAB, encoding="ascii")
    (root / "etc/machine-id").write_text("", encoding="ascii")
    shutil.copy(GUEST / "ether.network", root / "etc/systemd/network/ether.network")
    for script in (*GUEST.glob("*.py"), STORE_CHECK):
        shutil.copy(script, root / "usr/local/lib" / script.name)
    unit = SOURCES / "agent/systemd/edgewright-agent.service"
    for service in (GUEST / "board-shell.service", unit):
        shutil.copy(service, root / "etc/systemd/system" / service.name)
    wants = root / "etc/systemd/system/sysinit.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "board-shell.service").symlink_to("../board-shell.service")
    for path in ("var/lib/edgewright", "etc/edgewright"):
        (root / path).mkdir(exist_ok=True)


if __name__ == "__main__":
    write_image(Parts(Path(sys.argv[1])))

"""Where the virtual board lives, and what it is made of."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent.parent
SUITE = "bookworm"
PYTHON = "3.11"  # Debian's own of that suite
SUITES = {PYTHON: SUITE, "3.13": "trixie"}  # whose Python runs without a board
CPU = "cortex-a76"  # an Orin's and a Raspberry Pi 5's generation: dot products, no i8mm
MEMORY_MIB = 1024
BUDGET = "360MiB"  # of the agent there: what a board of that memory leaves a model
# Whose memory is compared with the prediction, by name: the built-in model, and the group size that a plan takes.
MODEL_SHAPES = {"135m": ("smollm2-135m", 64), "360m": ("smollm2-360m", 64), "1b": ("llama-3.2-1b", 128)}
CONTEXT_TOKENS = 512  # in use for that
CPUS = 2
DATA_MIB = 1024  # the disk under /var/lib/edgewright
DISK_BYTES = 4 * 2**30  # what a build and one run take
ROOM_BYTES = 512 * 2**20  # free in the root beside what is installed


def cache_folder() -> Path:
    """Returns the folder of everything that is built; EDGEWRIGHT_VIRTUAL_BOARD names another one."""
    named = os.environ.get("EDGEWRIGHT_VIRTUAL_BOARD")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else base / "edgewright" / "virtual-board"


@dataclass(frozen=True)
class Parts:
    """The files that a board is made of, by their folder."""

    folder: Path

    @property
    def root(self) -> Path:
        """Debian, installed and configured."""
        return self.folder / "root.tar"

    @property
    def kernel(self) -> Path:
        """Debian's kernel package and busybox, unpacked."""
        return self.folder / "kernel"

    @property
    def packages(self) -> Path:
        """What pip installs: the agent and its aarch64 wheels."""
        return self.folder / "site-packages"

    def programs_of(self, python: str) -> Path:
        """Returns the folder of Debian's Python for arm64, for programs that run without a board."""
        return self.folder / ("programs" if python == PYTHON else f"programs-{python}")

    def packages_of(self, python: str) -> Path:
        """Returns the folder of the agent and its wheels for that Python."""
        return self.packages if python == PYTHON else self.folder / f"site-packages-{python}"

    @property
    def initrd(self) -> Path:
        """Modules for the disk, and a script that mounts it."""
        return self.folder / "initrd.gz"

    @property
    def image(self) -> Path:
        """The root's disk; boards write to copies."""
        return self.folder / "root.img"

    @property
    def vmlinuz(self) -> Path:
        """The kernel itself."""
        return next((self.kernel / "boot").glob("vmlinuz-*"))

    @property
    def kernel_version(self) -> str:
        """Such as 6.1.0-56-arm64."""
        return self.vmlinuz.name.removeprefix("vmlinuz-")

"""Runs one Python program on an emulated ARM processor, in seconds: no board, no kernel of its own.

ONNX Runtime reads /proc/cpuinfo for the cores and fails on the host's, so the program sees an ARM one there.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from virtual_board import wheels
from virtual_board.build import locked
from virtual_board.debian import unpack_programs
from virtual_board.needs import check_programs
from virtual_board.settings import PYTHON, SOURCES, SUITES, Parts, cache_folder

BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
# What Linux says of each processor. `max` computes int8 by matrix multiplication (i8mm), as Thor's Neoverse-V3AE does.
FEATURES = {
    "cortex-a57": (0xD07, BASE),
    "cortex-a72": (0xD08, BASE),
    "cortex-a76": (0xD0B, f"{BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"),
    "neoverse-n1": (0xD0C, f"{BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"),
    "max": (0xD83, f"{BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp i8mm bf16"),
}
CPUS = {"max": "max,sve=off,sme=off"}  # QEMU 7.2's SVE is slow, and changes no product of 4-bit weights


def run_python(cpu: str, arguments: Sequence[str], version: str = PYTHON) -> int:
    """Runs `python ARGUMENTS` there, with the agent's packages and this source tree; returns its exit code."""
    root, packages = prepare(version)
    paths = [*(SOURCES / name for name in ("sdk", "agent", "builder", "device_profiles")), packages]
    with tempfile.NamedTemporaryFile("w", prefix="cpuinfo-") as info:
        info.write("".join(core(cpu, number) for number in range(os.cpu_count() or 1)))
        info.flush()
        python = root / f"usr/bin/python{version}"
        script = 'mount --bind "$0" /proc/cpuinfo && exec "$@"'
        emulator = ["qemu-aarch64-static", "-cpu", CPUS.get(cpu, cpu), "-L", str(root), str(python)]
        return subprocess.run(
            [
                "unshare",
                *([] if os.geteuid() == 0 else ["-r"]),
                "-m",
                "sh",
                "-c",
                script,
                info.name,
                *emulator,
                *arguments,
            ],
            env=os.environ | {"PYTHONPATH": ":".join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        ).returncode


def prepare(version: str) -> tuple[Path, Path]:
    """Returns the folder of Debian's Python for arm64 and that of the agent's wheels; made once."""
    parts = Parts(cache_folder())
    programs, packages = parts.programs_of(version), parts.packages_of(version)
    check_programs("mmdebstrap", "qemu-aarch64-static")
    with locked(parts):
        if not programs.exists():
            unpack_programs(programs, SUITES[version])
        if not packages.exists():
            wheels.install(packages, version)
    return programs, packages


def core(cpu: str, number: int) -> str:
    """Returns a core as Linux shows it in /proc/cpuinfo."""
    part, features = FEATURES[cpu]
    return (
        f"processor\t: {number}\nBogoMIPS\t: 125.00\nFeatures\t: {features} cpuid\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: {part:#05x}\nCPU revision\t: 1\n\n"
    )

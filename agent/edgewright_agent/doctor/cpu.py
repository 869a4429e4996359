"""Reads from `/proc/cpuinfo` what the CPU is called and how many cores it has.

x86 says "model name". ARM says the numbers of each core's implementer and part (arch/arm64/kernel/cpuinfo.c). Their
names are those of `lscpu` (util-linux, sys-utils/lscpu-arm.c), for the boards that run language models.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from edgewright_agent.telemetry.collectors.sysfs import read_text

ARM, NVIDIA = 0x41, 0x4E
PARTS = {
    (ARM, 0xD03): "Cortex-A53", (ARM, 0xD04): "Cortex-A35", (ARM, 0xD05): "Cortex-A55", (ARM, 0xD07): "Cortex-A57",
    (ARM, 0xD08): "Cortex-A72", (ARM, 0xD09): "Cortex-A73", (ARM, 0xD0A): "Cortex-A75", (ARM, 0xD0B): "Cortex-A76",
    (ARM, 0xD0C): "Neoverse-N1", (ARM, 0xD0D): "Cortex-A77", (ARM, 0xD40): "Neoverse-V1", (ARM, 0xD41): "Cortex-A78",
    (ARM, 0xD42): "Cortex-A78AE", (ARM, 0xD44): "Cortex-X1", (ARM, 0xD46): "Cortex-A510", (ARM, 0xD47): "Cortex-A710",
    (ARM, 0xD49): "Neoverse-N2", (ARM, 0xD4B): "Cortex-A78C", (ARM, 0xD4D): "Cortex-A715", (ARM, 0xD4F): "Neoverse-V2",
    (ARM, 0xD80): "Cortex-A520", (ARM, 0xD81): "Cortex-A720", (ARM, 0xD83): "Neoverse-V3AE",
    (ARM, 0xD84): "Neoverse-V3",
    (NVIDIA, 0x000): "Denver", (NVIDIA, 0x003): "Denver 2", (NVIDIA, 0x004): "Carmel",
}  # fmt: skip


def name(root: Path) -> str:
    """Returns the CPU's name, with counts if there are several kinds of core; empty if it does not say."""
    cores = _cores(root)
    models = Counter(name for core in cores if (name := core.get("model name") or _arm_name(core)))
    return " + ".join(
        models if len(models) < 2 else (f"{count} × {model}" for model, count in models.items())
    )


def cores(root: Path) -> int:
    """Returns how many cores are on line; 0 if it does not say."""
    return len(_cores(root))


def _cores(root: Path) -> list[dict[str, str]]:
    """Returns the fields of each core. A core's block begins with its number."""
    cores: list[dict[str, str]] = []
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "processor" and value.isdecimal():
            cores.append({})
        elif cores and key:
            cores[-1][key] = value
    return cores


def _arm_name(core: dict[str, str]) -> str:
    try:
        implementer, part = int(core["CPU implementer"], 0), int(core["CPU part"], 0)
    except (KeyError, ValueError):
        return ""
    return PARTS.get((implementer, part), f"implementer {implementer:#04x}, part {part:#05x}")

"""The board's memory, from `/proc/meminfo`."""

from __future__ import annotations

from pathlib import Path

from edgewright_agent.telemetry.collectors.sysfs import NoDataError, read_text
from edgewright_agent.telemetry.types import BoardMemory


def read(root: Path) -> BoardMemory:
    """Returns total, available and used swap memory and the GPU's share, now. Raises NoDataError."""
    return parse(read_text(root / "proc/meminfo") or "")


def parse(meminfo: str) -> BoardMemory:
    """Reads the text of `/proc/meminfo`. Raises NoDataError if a field is missing."""
    kib = {name: value for name, _, value in (line.partition(":") for line in meminfo.splitlines())}
    try:
        total, available = _bytes(kib["MemTotal"]), _bytes(kib["MemAvailable"])
        swap_used = _bytes(kib.get("SwapTotal", "0")) - _bytes(kib.get("SwapFree", "0"))
        nvmap = _bytes(kib["NvMapMemUsed"]) if "NvMapMemUsed" in kib else None
    except (KeyError, ValueError, IndexError) as error:
        raise NoDataError(f"/proc/meminfo lacks a usable {error}") from None
    return BoardMemory(total, available, swap_used, nvmap)


def _bytes(value: str) -> int:
    return int(value.split()[0]) * 1024

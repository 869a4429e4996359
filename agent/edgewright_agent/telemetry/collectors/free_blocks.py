"""How much memory is in one piece, from `/proc/buddyinfo` (kernel: Documentation/filesystems/proc.rst).

    Node 0, zone   Normal    216    55    189  ...    3

Column n counts free blocks of 2^n pages. CUDA on a Tegra fails to allocate when the largest are used up, however much
is free in small ones; tegrastats calls this figure `lfb`.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgewright_agent.telemetry.collectors.sysfs import NoDataError, read_text
from edgewright_agent.telemetry.types import FreeBlocks

FILE = "proc/buddyinfo"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def read(root: Path) -> FreeBlocks:
    """Returns the free blocks of the largest size, over all nodes and zones. Raises NoDataError."""
    text = read_text(root / FILE)
    if not text:
        raise NoDataError(f"/{FILE} can't be read")
    try:
        zones = [[int(count) for count in line.split()[4:]] for line in text.splitlines()]
    except ValueError as error:
        raise NoDataError(f"/{FILE} is not understood ({error})") from None
    columns = {len(zone) for zone in zones}
    if len(columns) != 1 or columns == {0}:
        raise NoDataError(f"/{FILE} is not understood: its lines have {sorted(columns)} columns")
    return FreeBlocks(count=sum(zone[-1] for zone in zones), block_bytes=PAGE_BYTES << (columns.pop() - 1))

"""The power mode of a Jetson, by name: mode numbers mean different things on different boards.

`/var/lib/nvpmodel/status` holds `pmode:0002`; `/etc/nvpmodel.conf` names it in a line
`< POWER_MODEL ID=2 NAME=MAXN_SUPER >`.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgewright_agent.telemetry.collectors.sysfs import NoDataError, read_text

STATUS = re.compile(r"pmode:\s*(\d+)")
MODE = re.compile(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", re.MULTILINE)


def read(root: Path) -> str:
    """Returns the name of the mode the board is in. Raises NoDataError."""
    status = STATUS.search(read_text(root / "var/lib/nvpmodel/status") or "")
    if status is None:
        raise NoDataError("no /var/lib/nvpmodel/status: not a Jetson, or nvpmodel has not run")
    names = parse_modes(read_text(root / "etc/nvpmodel.conf") or "")
    number = int(status.group(1))
    if number not in names:
        raise NoDataError(f"power mode {number} is not named in /etc/nvpmodel.conf")
    return names[number]


def parse_modes(conf: str) -> dict[int, str]:
    """Returns the names of the power modes by number, from the text of `/etc/nvpmodel.conf`."""
    return {int(number): name for number, name in MODE.findall(conf)}

"""The rails that an energy source gives, and how to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgewright_agent.telemetry.collectors.sysfs import read_text

Read = Callable[[], "float | None"]


@dataclass(frozen=True)
class Rail:
    """A measured rail. `read` gives watts, or joules of a counter if `is_counter`; None: no answer now."""

    name: str  # the sensor's own label
    source: str
    read: Read
    is_counter: bool = False
    wraps_at_joules: float | None = None  # the counter's range


def hwmon_chips(root: Path, name: str) -> Iterator[Path]:
    """Yields the folders of the hwmon chips of that name, in order of their number."""
    folders = root.glob("sys/class/hwmon/hwmon*")
    for folder in sorted(folders, key=lambda path: (len(path.name), path.name)):
        if read_text(folder / "name") == name:
            yield folder

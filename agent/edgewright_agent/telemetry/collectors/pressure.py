"""How long tasks waited for memory, from `/proc/pressure/memory` (kernel: Documentation/accounting/psi.rst).

    some avg10=0.12 avg60=0.03 avg300=0.00 total=123456
    full avg10=0.00 ...

`some`: at least one task stalled; `full`: all of them. Averages are percent of the time, the total is in microseconds.
A board that is about to kill the engine shows it here first.
"""

from __future__ import annotations

from pathlib import Path

from edgewright_agent.telemetry.collectors.sysfs import NoDataError, read_text
from edgewright_agent.telemetry.types import MemoryPressure

FILE = "proc/pressure/memory"


def read(root: Path) -> MemoryPressure:
    """Returns the pressure now. Raises NoDataError, as on kernels before 4.20 and those started with psi=0."""
    text = read_text(root / FILE)
    if text is None:
        raise NoDataError(f"/{FILE} can't be read: this kernel does not account for pressure")
    lines = {kind: dict(field.split("=", 1) for field in rest.split()) for kind, _, rest in _split(text)}
    try:
        some, full = lines["some"], lines["full"]
        return MemoryPressure(
            some_ratio=float(some["avg10"]) / 100,
            full_ratio=float(full["avg10"]) / 100,
            some_seconds=int(some["total"]) / 1e6,
            full_seconds=int(full["total"]) / 1e6,
        )
    except (KeyError, ValueError) as error:
        raise NoDataError(f"/{FILE} lacks a usable {error}") from None


def _split(text: str) -> list[tuple[str, str, str]]:
    return [line.partition(" ") for line in text.splitlines()]

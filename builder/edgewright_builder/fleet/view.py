"""A rollout as people watch it: a bar on a terminal, a line per device elsewhere, and a summary at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edgewright_builder.fleet.inventory import FleetDevice
from edgewright_builder.fleet.journal import DeviceResult
from edgewright_builder.fleet.rollout import RolloutListener
from edgewright_builder.fleet.wave_rules import SUCCESSES

UNDER_WAY_MAX = 3


class RolloutView:
    """Shows a rollout on `console`."""

    def __init__(self, console: Console, devices: int, waves: int) -> None:
        self._console = console
        self._waves = waves
        self._under_way: list[str] = []
        self._bar = Progress(
            TextColumn("  {task.fields[wave]}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}"),
            TimeElapsedColumn(), console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("rollout", total=devices, wave="", now="")

    @contextmanager
    def shown(self) -> Iterator[RolloutListener]:
        """While the context is open; what it gives is the rollout's listener."""
        listener = RolloutListener(self._wave_begins, self._device_begins, self._device_ended)
        if not self._console.is_terminal:
            yield listener
            return
        with self._bar:
            yield listener

    def _wave_begins(self, number: int, devices: int) -> None:
        wave = f"wave {number} of {self._waves}"
        self._bar.update(self._task, wave=wave)
        self._console.print(f"{wave}: {devices} {'device' if devices == 1 else 'devices'}", markup=False)

    def _device_begins(self, device: FleetDevice) -> None:
        self._under_way.append(device.name)
        self._show_under_way()

    def _device_ended(self, device: FleetDevice, result: DeviceResult) -> None:
        self._under_way.remove(device.name)
        self._show_under_way()
        self._bar.advance(self._task)
        colour = "green" if result.outcome in SUCCESSES else "red"
        line = f"  {escape(device.name)}  [{colour}]{result.outcome.value}[/]  {result.seconds:.1f} s"
        detail = "" if result.outcome in SUCCESSES else f"  {escape(result.message)}"
        self._console.print(line + detail, soft_wrap=True)

    def _show_under_way(self) -> None:
        more = len(self._under_way) - UNDER_WAY_MAX
        names = ", ".join(self._under_way[:UNDER_WAY_MAX]) + (f" and {more} more" if more > 0 else "")
        self._bar.update(self._task, now=names)

"""One screen about one board: what it serves, how fast, in how much memory, at how many watts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edgewright.sizes import format_bytes

if TYPE_CHECKING:
    from edgewright_builder.python_api.results.board import BoardStatus
    from edgewright_builder.python_api.results.telemetry import (
        EnergyReading,
        LatencyDistribution,
        MemoryFigures,
        TelemetrySnapshot,
    )

HISTORY = 40  # points of a sparkline
RATE_POINTS = 4  # the rate shown is their mean
BAR_CELLS = 14
LABEL_CHARACTERS = 14
CLOCKS_MAX = 6
BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass
class History:
    """What a single snapshot does not tell: rates, and how they went."""

    tokens_per_second: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    watts: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _last: tuple[float, int] | None = None

    @property
    def rate(self) -> float:
        """Tokens a second over the last few snapshots."""
        last = list(self.tokens_per_second)[-RATE_POINTS:]
        return sum(last) / len(last) if last else 0.0

    def add(self, snapshot: TelemetrySnapshot) -> None:
        """Takes note of the next snapshot; counters that fall belong to a new release."""
        now = snapshot.monotonic_seconds, snapshot.serving.generated_tokens
        if self._last is not None and now[0] > self._last[0] and now[1] >= self._last[1]:
            self.tokens_per_second.append((now[1] - self._last[1]) / (now[0] - self._last[0]))
        self._last = now
        if (board := next(iter(_rails(snapshot)), None)) is not None and board.watts is not None:
            self.watts.append(board.watts)


def render(host: str, status: BoardStatus, snapshot: TelemetrySnapshot, history: History) -> RenderableType:
    """Returns the whole screen: three panels beside each other where they fit."""
    panels = {
        "requests": _serving(snapshot, history),
        "memory": _memory(snapshot.memory),
        "power and heat": _power(snapshot, history),
    }
    return Group(
        _head(host, status, snapshot),
        Columns([Panel(body, title=title, title_align="left") for title, body in panels.items()]),
    )


def sparkline(values: Iterable[float]) -> str:
    """Returns a row of blocks, the highest value full."""
    points = list(values)
    top = max(points, default=0.0)
    if top <= 0:
        return BLOCKS[0] * len(points)
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(value / top * len(BLOCKS)))] for value in points)


def bar(part: float, whole: float) -> Text:
    """Returns how much of `whole` is taken: green, yellow from 80 %, red from 95 %."""
    ratio = part / whole if whole else 0.0
    full = min(BAR_CELLS, round(ratio * BAR_CELLS))
    colour = "red" if ratio >= 0.95 else "yellow" if ratio >= 0.8 else "green"
    return Text("█" * full, colour) + Text("░" * (BAR_CELLS - full), "dim") + Text(f" {ratio:.0%}")


def _head(host: str, status: BoardStatus, snapshot: TelemetrySnapshot) -> RenderableType:
    names = {release.release: f"{release.name} {release.version}" for release in status.releases}
    active = snapshot.active_release
    serves = f"{names.get(active, 'a release')} ({active[:12]})" if active else "no release"
    phase = status.phase.replace("_", " ")
    mode = f" · power mode {snapshot.power_mode}" if snapshot.power_mode is not None else ""
    return Text.assemble(
        (f"{host} ", "bold cyan"), f"{status.profile_id} · {phase} · serves ", (serves, "bold"), mode
    )


def _grid(rows: Iterable[tuple[RenderableType, ...]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*row)
    return table


def _serving(snapshot: TelemetrySnapshot, history: History) -> RenderableType:
    serving = snapshot.serving
    latencies = Table(box=None, header_style="dim", padding=(0, 1))
    for column in ("", "p50", "p90", "p99"):
        latencies.add_column(column, justify="right" if column else "left")
    for name, values in (
        ("TTFT", serving.time_to_first_token_seconds),
        ("TPOT", serving.time_per_output_token_seconds),
        ("ITL", serving.inter_token_latency_seconds),
    ):
        latencies.add_row(name, *_percentiles(values))
    counts = f"{serving.requests} requests, {serving.requests_in_flight} in flight"
    trouble = f"{serving.requests_failed} failed, {serving.requests_rejected} rejected"
    return Group(
        Text.assemble((f"{history.rate:.1f} ", "bold"), "tokens/s generated"),
        Text(sparkline(history.tokens_per_second), "cyan"),
        latencies,
        Text(counts),
        Text(trouble, "red" if serving.requests_failed else "dim"),
    )


def _percentiles(values: LatencyDistribution) -> tuple[str, ...]:
    if not values.count:
        return ("-", "-", "-")
    return tuple(_time(seconds) for seconds in (values.p50, values.p90, values.p99))


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _memory(memory: MemoryFigures) -> RenderableType:
    used = memory.total_bytes - memory.available_bytes
    rows: list[tuple[RenderableType, ...]] = [
        ("engine", Text("none", "dim"), ""),
        ("budget", "", format_bytes(memory.budget_bytes)),
    ]
    if memory.engine_bytes is not None:
        rows[0] = ("engine", bar(memory.engine_bytes, memory.budget_bytes), format_bytes(memory.engine_bytes))
    if memory.engine_peak_bytes is not None:
        peak = memory.engine_peak_bytes
        rows.insert(1, ("its peak", bar(peak, memory.budget_bytes), format_bytes(peak)))
    rows.append(("board", bar(used, memory.total_bytes), format_bytes(used)))
    rows.append(("of", "", format_bytes(memory.total_bytes)))
    if memory.nvmap_used_bytes is not None:
        rows.append(("GPU", "", format_bytes(memory.nvmap_used_bytes)))
    rows.append(("agent", "", format_bytes(memory.agent_bytes)))
    if memory.swap_used_bytes:
        rows.append(("swap", "", format_bytes(memory.swap_used_bytes)))
    if memory.pressure is not None:
        stalled = f"{memory.pressure.some_ratio:.1%} some, {memory.pressure.full_ratio:.1%} full"
        rows.append(("stalled", Text(stalled), ""))
    if memory.largest_free_blocks is not None and memory.largest_free_block_bytes is not None:
        blocks = f"{memory.largest_free_blocks} × {format_bytes(memory.largest_free_block_bytes)} free"
        rows.append(("blocks", Text(blocks), ""))
    return _grid(rows)


def _power(snapshot: TelemetrySnapshot, history: History) -> RenderableType:
    return _grid([*_watts(snapshot, history), *_heat(snapshot), *_speed(snapshot)])


def _rails(snapshot: TelemetrySnapshot) -> list[EnergyReading]:
    """Returns every rail, the one that is the whole board first."""
    return sorted(snapshot.energy, key=lambda rail: not rail.whole_module)


def _watts(snapshot: TelemetrySnapshot, history: History) -> list[tuple[RenderableType, ...]]:
    """Returns every rail, the one that is the whole board in bold; a silent one says so."""
    rows: list[tuple[RenderableType, ...]] = []
    for rail in _rails(snapshot):
        watts = f"{rail.watts:.2f} W" if rail.watts is not None else "no answer"
        rows.append((_name(rail.name, "bold" if rail.whole_module else ""), watts, f"{rail.joules:.0f} J"))
    if not rows:
        return [(Text("no energy sensor", "dim"), "", "")]
    if history.watts:
        rows.append((Text(sparkline(list(history.watts)[-LABEL_CHARACTERS:]), "cyan"), "", ""))
    return rows


def _heat(snapshot: TelemetrySnapshot) -> list[tuple[RenderableType, ...]]:
    zones = sorted(snapshot.temperatures, key=lambda zone: -zone.celsius)[:4]
    rows: list[tuple[RenderableType, ...]] = [
        (_name(zone.zone), f"{zone.celsius:.1f} °C", "") for zone in zones
    ]
    return rows or [(Text("no thermal zone", "dim"), "", "")]


def _speed(snapshot: TelemetrySnapshot) -> list[tuple[RenderableType, ...]]:
    """Clocks, those of GPU and memory first; cores that go at the same pace are one line."""
    rows: list[tuple[RenderableType, ...]] = [
        (_name(unit), f"{hertz / 1e6:.0f} MHz", "") for unit, hertz in clocks_by_unit(snapshot)[:CLOCKS_MAX]
    ]
    rows = rows or [(Text("no clock told", "dim"), "", "")]
    if snapshot.gpu_load_ratio is not None:
        rows.append(("GPU load", f"{snapshot.gpu_load_ratio:.0%}", ""))
    rows += [
        (Text(each.cause.replace("_", " "), "red"), f"{each.events} ×", "")
        for each in snapshot.throttling
        if each.events
    ]
    if snapshot.power_mode is None:
        rows.append((Text("no power mode", "dim"), "", ""))
    return rows


def clocks_by_unit(snapshot: TelemetrySnapshot) -> list[tuple[str, int]]:
    """(units, hertz), GPU and memory first: `cpu0-3` where neighbouring cores have the same clock."""
    runs: list[tuple[str, str, int]] = []  # first unit, last unit, hertz
    for clock in snapshot.clocks:
        is_core = clock.unit.startswith("cpu")
        if is_core and runs and runs[-1][0].startswith("cpu") and runs[-1][2] == clock.hertz:
            runs[-1] = (runs[-1][0], clock.unit, clock.hertz)
        else:
            runs.append((clock.unit, clock.unit, clock.hertz))
    named = [
        (first if first == last else f"{first}-{last.removeprefix('cpu')}", hertz)
        for first, last, hertz in runs
    ]
    return sorted(named, key=lambda each: each[0].startswith("cpu"))


def _name(name: str, style: str = "") -> Text:
    """Returns a rail's or zone's name, cut so that its number stays on the screen; a sum of rails is called that."""
    name = f"sum of {name.count('+') + 1}" if "+" in name else name
    short = name if len(name) <= LABEL_CHARACTERS else f"{name[: LABEL_CHARACTERS - 1]}…"
    return Text(short, style)

"""One screen about one board: what it serves, how fast, in how much memory, at how many watts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edgewright.v1.deployment_pb2 import GetDeviceResponse, Phase, Release
from edgewright.v1.telemetry_pb2 import Distribution, Memory, Snapshot
from edgewright_agent.sizes import format_bytes

HISTORY = 60  # points of a sparkline
BAR_CELLS = 30
BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass
class History:
    """What a single snapshot does not tell: rates, and how they went."""

    tokens_per_second: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    watts: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _last: tuple[float, int] | None = None

    def add(self, snapshot: Snapshot) -> None:
        """Takes note of the next snapshot; counters that fall belong to a new release."""
        now = snapshot.monotonic_seconds, snapshot.serving.generated_tokens
        if self._last is not None and now[0] > self._last[0] and now[1] >= self._last[1]:
            self.tokens_per_second.append((now[1] - self._last[1]) / (now[0] - self._last[0]))
        self._last = now
        module = [rail.watts for rail in snapshot.energy if rail.HasField("watts")]
        if module:
            self.watts.append(module[0])


def render(
    host: str, device: GetDeviceResponse, releases: Sequence[Release], snapshot: Snapshot, history: History
) -> RenderableType:
    """The whole screen."""
    return Group(
        _head(host, device, releases, snapshot),
        Columns(
            [
                Panel(_serving(snapshot, history), title="requests", title_align="left"),
                Panel(_memory(snapshot.memory), title="memory", title_align="left"),
                Panel(_power(snapshot, history), title="power and heat", title_align="left"),
            ]
        ),
    )


def sparkline(values: Iterable[float]) -> str:
    """A row of blocks, the highest value full."""
    points = list(values)
    top = max(points, default=0.0)
    if top <= 0:
        return BLOCKS[0] * len(points)
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(value / top * len(BLOCKS)))] for value in points)


def bar(part: float, whole: float) -> Text:
    """How much of `whole` is taken: green, yellow from 80 %, red from 95 %."""
    ratio = part / whole if whole else 0.0
    full = min(BAR_CELLS, round(ratio * BAR_CELLS))
    colour = "red" if ratio >= 0.95 else "yellow" if ratio >= 0.8 else "green"
    return Text("█" * full, colour) + Text("░" * (BAR_CELLS - full), "dim") + Text(f" {ratio:.0%}")


def _head(
    host: str, device: GetDeviceResponse, releases: Sequence[Release], snapshot: Snapshot
) -> RenderableType:
    names = {release.release: f"{release.name} {release.version}" for release in releases}
    active = snapshot.active_release
    serves = f"{names.get(active, 'a release')} ({active.hex()[:12]})" if active else "no release"
    phase = Phase.Name(device.phase).removeprefix("PHASE_").lower().replace("_", " ")
    mode = f" · power mode {snapshot.power_mode}" if snapshot.HasField("power_mode") else ""
    return Text.assemble(
        (f"{host} ", "bold cyan"), f"{device.profile_id} · {phase} · serves ", (serves, "bold"), mode
    )


def _grid(rows: Iterable[tuple[RenderableType, ...]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*row)
    return table


def _serving(snapshot: Snapshot, history: History) -> RenderableType:
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
    rate = history.tokens_per_second[-1] if history.tokens_per_second else 0.0
    counts = f"{serving.requests} requests, {serving.requests_in_flight} in flight"
    trouble = f"{serving.requests_failed} failed, {serving.requests_rejected} rejected"
    return Group(
        Text.assemble((f"{rate:6.1f} ", "bold"), "tokens/s"),
        Text(sparkline(history.tokens_per_second), "cyan"),
        latencies,
        Text(counts),
        Text(trouble, "red" if serving.requests_failed else "dim"),
    )


def _percentiles(values: Distribution) -> tuple[str, ...]:
    if not values.count:
        return ("-", "-", "-")
    return tuple(f"{seconds * 1e3:.1f} ms" for seconds in (values.p50, values.p90, values.p99))


def _memory(memory: Memory) -> RenderableType:
    used = memory.total_bytes - memory.available_bytes
    rows: list[tuple[RenderableType, ...]] = [
        (
            "board",
            bar(used, memory.total_bytes),
            f"{format_bytes(used)} of {format_bytes(memory.total_bytes)}",
        )
    ]
    if memory.HasField("engine_bytes"):
        budget = format_bytes(memory.budget_bytes)
        for name, value in (("engine", memory.engine_bytes), ("peak", memory.engine_peak_bytes)):
            text = f"{format_bytes(value)} of {budget} budget"
            rows.append((name, bar(value, memory.budget_bytes), text))
    else:
        rows.append(("engine", Text("none", "dim"), ""))
    rows.append(("agent", "", format_bytes(memory.agent_bytes)))
    if memory.HasField("nvmap_used_bytes"):
        rows.append(("GPU", "", format_bytes(memory.nvmap_used_bytes)))
    if memory.swap_used_bytes:
        rows.append(("swap", "", format_bytes(memory.swap_used_bytes)))
    if memory.HasField("pressure"):
        rows.append(
            ("pressure", "", f"{memory.pressure.some_ratio:.1%} some, {memory.pressure.full_ratio:.1%} full")
        )
    return _grid(rows)


def _power(snapshot: Snapshot, history: History) -> RenderableType:
    rows: list[tuple[RenderableType, ...]] = [
        (Text(rail.name, "bold" if rail.whole_module else ""), f"{rail.watts:.2f} W", f"{rail.joules:.0f} J")
        for rail in snapshot.energy
        if rail.HasField("watts")
    ]
    rows = rows or [(Text("no energy sensor", "dim"), "", "")]
    if history.watts:
        rows.append((Text(sparkline(history.watts), "cyan"), "", ""))
    rows += [(zone.zone, f"{zone.celsius:.1f} °C", "") for zone in snapshot.temperatures[:6]]
    rows += [(clock.unit, f"{clock.hertz / 1e6:.0f} MHz", "") for clock in snapshot.clocks[:6]]
    if snapshot.HasField("gpu_load_ratio"):
        rows.append(("GPU load", f"{snapshot.gpu_load_ratio:.0%}", ""))
    return _grid(rows)

"""Finds out what this board is, has and can run, and which device profile describes it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from edgewright_agent.doctor import cpu
from edgewright_agent.engines import EngineInfo, available_engines
from edgewright_agent.engines.process.cgroup import Enforcement, enforcement
from edgewright_agent.runtime.jetson_linux import jetson_linux
from edgewright_agent.telemetry import SensorStatus
from edgewright_agent.telemetry.collectors.registry import asked, discover_rails, read_gauges
from edgewright_agent.telemetry.collectors.sysfs import read_text
from edgewright_agent.telemetry.types import BoardMemory
from edgewright_profiles import DeviceProfile, list_profiles, load_profile

THIS_HOST = "this-host"
MEMORY_TOLERANCE = 0.05  # share by which a board's memory may differ from its profile's
# Jetson Linux releases with a fault that hits language models.
FAULTY_L4T = {
    "36.4.7": "CUDA allocations may fail with NvMapMemAllocInternalTagged error 12; 36.5.0 mends it",
}


@dataclass(frozen=True)
class BoardFacts:
    """The board as it is now. Empty or None: it could not be found out."""

    board_model: str
    device_tree_compatible: tuple[str, ...]
    machine: str
    kernel: str
    l4t: str | None
    power_mode: str | None
    cpu: str
    cpu_cores: int
    python: str
    memory: BoardMemory | None
    sensors: tuple[SensorStatus, ...]
    engines: tuple[EngineInfo, ...]
    memory_limit: Enforcement  # whether an engine that takes more than the budget can be stopped
    profile_id: str
    profile_reason: str
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for `json.dumps`."""
        return asdict(self)


def probe(
    root: Path = Path("/"), engines: Callable[[], Sequence[EngineInfo]] = available_engines
) -> BoardFacts:
    """Looks at the board below `root`. Kernel, machine, Python and engines are the running system's."""
    values, gauge_sensors = read_gauges(root)
    rails, sources = discover_rails(root)
    energy_sensors = asked(rails, sources)
    model = read_text(root / "proc/device-tree/model") or ""
    compatible = tuple((read_text(root / "proc/device-tree/compatible") or "").replace("\0", " ").split())
    memory: BoardMemory | None = values.get("memory")
    l4t = jetson_linux(root)
    cpu_name = cpu.name(root)
    profile, reason = guess_profile(model, compatible, cpu_name, memory.total_bytes if memory else None)
    return BoardFacts(
        board_model=model,
        device_tree_compatible=compatible,
        machine=platform.machine(),
        kernel=platform.release(),
        l4t=l4t,
        power_mode=values.get("power_mode"),
        cpu=cpu_name,
        cpu_cores=cpu.cores(root) or os.cpu_count() or 1,
        python=platform.python_version(),
        memory=memory,
        sensors=(*energy_sensors, *gauge_sensors),
        engines=tuple(engines()),
        memory_limit=enforcement(root / "sys/fs/cgroup", root / "proc/self/cgroup"),
        profile_id=profile.id,
        profile_reason=reason,
        warnings=_warnings(l4t, memory, profile),
    )


def guess_profile(
    model: str, compatible: Sequence[str], cpu: str, memory_bytes: int | None
) -> tuple[DeviceProfile, str]:
    """Returns the profile that fits, nearest in memory where several do, and why; `this-host` if none does."""
    candidates = [
        (profile, why)
        for profile in map(load_profile, list_profiles())
        if (why := _match(profile, model, " ".join(compatible), cpu))
    ]
    if not candidates:
        return load_profile(THIS_HOST), "no device profile knows this board"

    def distance(candidate: tuple[DeviceProfile, str]) -> int:
        seen = candidate[0].memory.seen_bytes.value
        return abs(seen - memory_bytes) if memory_bytes is not None else seen

    return min(candidates, key=distance)


def render(found: BoardFacts) -> RenderableType:
    """Returns the probe for people."""
    parts: list[RenderableType] = [_board_table(found), _sensor_table(found), _engine_table(found)]
    parts += [Text(f"Warning: {warning}", style="yellow") for warning in found.warnings]
    return Group(*parts)


def _match(profile: DeviceProfile, model: str, compatible: str, cpu: str) -> str | None:
    for key in profile.detect.compatible:
        if key in compatible:
            return f"the device tree says {key}"
    for key in profile.detect.model:
        if key in model:
            return f"the board calls itself {model}"
    for key in profile.detect.cpu:
        if key in cpu:
            return f"the CPU is an {key}"
    return None


def _warnings(l4t: str | None, memory: BoardMemory | None, profile: DeviceProfile) -> tuple[str, ...]:
    warnings = []
    if l4t in FAULTY_L4T:
        warnings.append(f"L4T {l4t}: {FAULTY_L4T[l4t]}")
    seen = profile.memory.seen_bytes.value
    if memory is not None and abs(memory.total_bytes - seen) > MEMORY_TOLERANCE * seen:
        warnings.append(
            f"The board has {memory.total_bytes / 2**20:.0f} MiB, the profile {profile.id} says "
            f"{seen / 2**20:.0f} MiB; start the agent with --budget."
        )
    return tuple(warnings)


def _board_table(found: BoardFacts) -> Table:
    table = Table(title="Board", show_header=False, title_justify="left")
    memory = found.memory
    rows = {
        "Model": found.board_model or "no device tree",
        "Profile": f"{found.profile_id} ({found.profile_reason})",
        "Machine": f"{found.machine}, kernel {found.kernel}",
        "Jetson Linux": found.l4t or "none",
        "Power mode": found.power_mode or "none",
        "CPU": f"{found.cpu_cores} × {found.cpu}" if found.cpu else f"{found.cpu_cores} of unknown kind",
        "Memory": f"{memory.available_bytes / 2**20:.0f} MiB available of {memory.total_bytes / 2**20:.0f}"
        if memory
        else "unknown",
        "Memory limit": found.memory_limit.detail
        if found.memory_limit.available
        else f"none for an agent started from here: {found.memory_limit.detail}",
        "Python": found.python,
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
    return table


def _sensor_table(found: BoardFacts) -> Table:
    table = Table("Sensor", "", "", title="Sensors", title_justify="left")
    for sensor in found.sensors:
        table.add_row(escape(sensor.name), _mark(sensor.available), escape(sensor.detail))
    return table


def _engine_table(found: BoardFacts) -> Table:
    table = Table("Engine", "", "Version", "", title="Engines", title_justify="left")
    for engine in found.engines:
        table.add_row(engine.kind, _mark(engine.available), escape(engine.version), escape(engine.detail))
    return table


def _mark(available: bool) -> Text:
    return Text("yes", style="green") if available else Text("no", style="dim")

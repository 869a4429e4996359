"""NVML, NVIDIA's library for discrete GPUs and Thor's, through the optional `nvidia-ml-py`.

On Orin NVML starts, finds one device and then supports no query, so a rail exists only if its value does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewright_agent.telemetry.collectors.rails import Rail
from edgewright_agent.telemetry.collectors.sysfs import NoDataError

SOURCE = "nvml"


def discover(root: Path) -> tuple[Rail, ...]:
    """Returns an energy counter for each GPU that answers, else its power. Raises NoDataError."""
    return rails_of(_library(root))


def load(root: Path) -> float:
    """Returns the share of time the first GPU that tells was busy, 0 to 1. Raises NoDataError."""
    return load_of(_library(root))


def _library(root: Path) -> Any:
    """Returns NVML. It has no root to redirect: with any `root` but `/` there is no data. Raises NoDataError."""
    if root != Path("/"):
        raise NoDataError("NVML measures the running machine only")
    try:
        import pynvml
    except ImportError:
        raise NoDataError("nvidia-ml-py is not installed (pip install 'edgewright[nvml]')") from None
    return pynvml


def load_of(nvml: Any) -> float:
    """Returns the load that `nvml`, a module like pynvml, tells. Raises NoDataError."""
    for device in _devices(nvml):
        try:
            return min(1.0, float(nvml.nvmlDeviceGetUtilizationRates(device).gpu) / 100)
        except nvml.NVMLError:
            continue
    raise NoDataError("NVML tells no GPU's load")


def _devices(nvml: Any) -> list[Any]:
    try:
        nvml.nvmlInit()
        return [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        raise NoDataError(f"NVML does not start: {error}") from None


def rails_of(nvml: Any) -> tuple[Rail, ...]:
    """Returns the rails that `nvml`, a module like pynvml, has values for. Raises NoDataError."""
    devices = _devices(nvml)
    rails = tuple(rail for i, device in enumerate(devices) if (rail := _rail(nvml, i, device)) is not None)
    if not rails:
        raise NoDataError(f"NVML finds {len(devices)} GPUs and supports neither energy nor power on any")
    return rails


def _rail(nvml: Any, index: int, device: Any) -> Rail | None:
    def joules() -> float | None:
        return _thousandths(nvml, nvml.nvmlDeviceGetTotalEnergyConsumption, device)  # mJ

    def watts() -> float | None:
        return _thousandths(nvml, nvml.nvmlDeviceGetPowerUsage, device)  # mW

    if joules() is not None:
        return Rail(f"gpu{index}", SOURCE, joules, is_counter=True)
    return Rail(f"gpu{index}", SOURCE, watts) if watts() is not None else None


def _thousandths(nvml: Any, query: Any, device: Any) -> float | None:
    try:
        return float(query(device)) / 1e3
    except nvml.NVMLError:
        return None

"""NVML, NVIDIA's library for discrete GPUs, through the optional `nvidia-ml-py`.

On Orin NVML starts, finds one device and then supports no query, so a rail exists only if its value does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewright_agent.telemetry.rails import Rail
from edgewright_agent.telemetry.sysfs import NoDataError

SOURCE = "nvml"


def discover(root: Path) -> tuple[Rail, ...]:
    """An energy counter for each GPU that answers, else its power. Raises NoDataError.

    NVML has no root to redirect: with any `root` but `/` there is no data.
    """
    if root != Path("/"):
        raise NoDataError("NVML measures the running machine only")
    try:
        import pynvml
    except ImportError:
        raise NoDataError("nvidia-ml-py is not installed (pip install 'edgewright[nvml]')") from None
    return rails_of(pynvml)


def rails_of(nvml: Any) -> tuple[Rail, ...]:
    """The rails that `nvml`, a module like pynvml, has values for. Raises NoDataError."""
    try:
        nvml.nvmlInit()
        devices = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        raise NoDataError(f"NVML does not start: {error}") from None
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

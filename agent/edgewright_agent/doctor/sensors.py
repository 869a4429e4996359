"""Checks that the power sensors of the profile are there, may be read, and give values."""

from __future__ import annotations

from pathlib import Path

from edgewright_agent.doctor.finding import Finding, Subject, ok, warning
from edgewright_agent.telemetry.collectors.registry import ENERGY_SOURCES
from edgewright_agent.telemetry.collectors.sysfs import NoDataError

WHERE = {
    "ina3221": "sys/class/hwmon/hwmon*/in*_input",
    "ina238": "sys/class/hwmon/hwmon*/power*_input",
    "ina2xx": "sys/class/hwmon/hwmon*/power*_input",
    "rapl": "sys/class/powercap/intel-rapl:*/energy_uj",
}

REMEDIES = {
    "ina3221": "Use NVIDIA's kernel for this board, whose device tree names the sensor; or the profile that fits.",
    "ina238": "Use NVIDIA's kernel for this board, whose device tree names the sensor; or the profile that fits.",
    "ina2xx": "Load its driver (`sudo modprobe ina2xx`), and name the chip in the carrier board's device tree.",
    "rapl": "`sudo modprobe intel_rapl_msr`; virtual machines have none, and then nothing can be done.",
    "nvml": "`pip install 'edgewright[nvml]'` and NVIDIA's driver.",
}


def sensors_answer(subject: Subject) -> Finding | None:
    """Checks that each sensor of the profile has its rails, and that each of them gives a value now."""
    if subject.profile is None or not subject.profile.sensors:
        return None
    for sensor in subject.profile.sensors:
        try:
            found = ENERGY_SOURCES[sensor.kind](subject.root)
        except NoDataError as absent:
            return _silent(subject.root, sensor.kind, str(absent))
        rails = {rail.name for rail in found}
        mute = [rail.name for rail in found if rail.read() is None]
        if mute:
            return warning(
                f"The sensor {sensor.kind} is there, and gives no value for {', '.join(mute)}: no energy is measured "
                "there.",
                "Look at its files: `grep -r . /sys/class/hwmon/hwmon*/ 2>&1 | grep -e _input -e _enable`; reboot if "
                "they answer with an error.",
            )
        lacking = [name for name in sensor.rails.value if name not in rails]
        if lacking and sensor.kind != "rapl":  # psys is a courtesy of some boards
            return warning(
                f"The sensor {sensor.kind} has the rails {', '.join(sorted(rails))}, not {', '.join(lacking)}.",
                "Energy is measured on what is there; check that --profile names this board.",
            )
    kinds = ", ".join(sensor.kind for sensor in subject.profile.sensors)
    return ok(f"The power sensor answers: {kinds}.")


def _silent(root: Path, kind: str, why: str) -> Finding:
    unreadable = [path for path in root.glob(WHERE.get(kind, "")) if _denied(path)] if kind in WHERE else []
    if unreadable:
        return warning(
            f"The power sensor {kind} may not be read by this user: {unreadable[0]}.",
            f"Allow the agent's group: `sudo chgrp edgewright {unreadable[0]} && sudo chmod g+r {unreadable[0]}`, "
            "and in a udev rule, as the mode is lost at boot.",
        )
    return warning(
        f"The power sensor {kind} of this board's profile is not there ({why}): no energy is measured.",
        REMEDIES.get(kind, "Check that --profile names this board."),
    )


def _denied(path: Path) -> bool:
    try:
        path.read_bytes()
    except PermissionError:
        return True
    except OSError:
        return False
    return False

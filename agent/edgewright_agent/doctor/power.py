"""Checks that the board runs as fast as it may."""

from __future__ import annotations

from edgewright_agent.doctor.finding import Finding, Subject, ok, warning
from edgewright_agent.telemetry.collectors import nvpmodel
from edgewright_agent.telemetry.collectors.sysfs import NoDataError, read_text
from edgewright_profiles import DeviceProfile


def power_mode_is_highest(subject: Subject) -> Finding | None:
    """Checks the power mode by its name: numbers mean different things on different boards."""
    try:
        current = nvpmodel.read(subject.root)
    except NoDataError:
        return None
    modes = nvpmodel.parse_modes(read_text(subject.root / "etc/nvpmodel.conf") or "")
    best = _highest(subject.profile, set(modes.values()))
    if best is None:
        return ok(
            f"The power mode is {current}; which of {', '.join(modes.values())} is the highest is not known."
        )
    if current == best:
        return ok(f"The power mode is {current}, the highest.")
    number = next(number for number, name in modes.items() if name == best)
    return warning(
        f"The power mode is {current}; {best} allows more, and a model's rate follows the memory's clock.",
        f"If power and cooling allow it: `sudo nvpmodel -m {number}`, and `sudo jetson_clocks` for a benchmark.",
    )


def gpu_may_be_used(subject: Subject) -> Finding | None:
    """Checks that this user may open the GPU's device, which belongs to the group `video` on a Jetson."""
    device = subject.root / "dev/nvmap"
    if not device.exists():
        return None
    try:
        with device.open("rb"):
            return ok("The GPU may be used by this user.")
    except PermissionError:
        return warning(
            f"This user may not open {device}: CUDA engines will not start.",
            "`sudo usermod -aG video,render edgewright`, and start the agent again.",
        )
    except OSError as error:
        return warning(
            f"{device} can't be opened: {error.strerror}.", "Reboot; a crashed engine can leave it so."
        )


def _highest(profile: DeviceProfile | None, offered: set[str]) -> str | None:
    """Returns the mode without a cap if the board has one, else the one of most watts; None unless the profile knows
    all.
    """
    uncapped = sorted(name for name in offered if name.startswith("MAXN"))
    if uncapped:
        return uncapped[-1]
    watts = {mode.name: mode.watts.value for mode in profile.power_modes if mode.watts} if profile else {}
    return max(offered, key=lambda name: watts[name]) if offered <= watts.keys() else None

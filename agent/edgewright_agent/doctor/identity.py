"""Checks that this is the board of the profile, with system software that works."""

from __future__ import annotations

from edgewright_agent.doctor.finding import Finding, Subject, ok, problem, warning
from edgewright_agent.doctor.probe import FAULTY_L4T, MEMORY_TOLERANCE, THIS_HOST, guess_profile
from edgewright_agent.runtime.jetson_linux import parse_l4t
from edgewright_agent.telemetry.collectors import memory
from edgewright_agent.telemetry.collectors.sysfs import NoDataError, read_text


def profile_fits(subject: Subject) -> Finding | None:
    """Checks that the profile is of this board."""
    profile = subject.profile
    if profile is None or profile.id == THIS_HOST:
        return None
    root = subject.root
    model = read_text(root / "proc/device-tree/model") or ""
    compatible = (read_text(root / "proc/device-tree/compatible") or "").replace("\0", " ").split()
    found, why = guess_profile(model, compatible, "", _memory_bytes(subject))
    if found.id == THIS_HOST:
        return warning(
            f"Nothing on this board says that it is {profile.name}.",
            "Check --profile; `edgewright-agent probe` shows what the board says of itself.",
        )
    if found.id != profile.id:
        return problem(
            f"The profile is {profile.id}, but {why}, which is {found.id}: releases for this board are refused.",
            f"Start the agent with --profile {found.id}.",
        )
    return ok(f"The board is {profile.name}: {why}.")


def memory_fits_the_profile(subject: Subject) -> Finding | None:
    """Checks that the board has the memory that budgets are made from."""
    total_bytes = _memory_bytes(subject)
    if subject.profile is None or total_bytes is None:
        return None
    expected = subject.profile.memory.seen_bytes.value
    if abs(total_bytes - expected) > MEMORY_TOLERANCE * expected:
        return warning(
            f"The board has {total_bytes / 2**20:.0f} MiB, the profile says {expected / 2**20:.0f}.",
            "Start the agent with --budget, e.g. what is available less 10 %.",
        )
    return ok(f"The board has {total_bytes / 2**20:.0f} MiB, as the profile says.")


def jetson_linux_is_sound(subject: Subject) -> Finding | None:
    """Checks that the Jetson Linux release has no known fault."""
    release = read_text(subject.root / "etc/nv_tegra_release")
    if release is None:
        return None
    l4t = parse_l4t(release)
    if l4t is None:
        return warning(
            "/etc/nv_tegra_release does not say which Jetson Linux this is.",
            "Flash it anew if all else fails.",
        )
    if l4t in FAULTY_L4T:
        remedy = (
            "`sudo apt update && sudo apt dist-upgrade`, and reboot. Source: NVIDIA's release notes of 36.5."
        )
        return problem(f"Jetson Linux {l4t}: {FAULTY_L4T[l4t]}.", remedy)
    return ok(f"Jetson Linux {l4t} has no fault that we know.")


def _memory_bytes(subject: Subject) -> int | None:
    try:
        return memory.read(subject.root).total_bytes
    except NoDataError:
        return None

"""Checks that there is memory for the model, and that an engine can be held to its share of it."""

from __future__ import annotations

import re
from pathlib import Path

from edgewright.sizes import format_bytes
from edgewright_agent.doctor.finding import Finding, Subject, ok, warning
from edgewright_agent.engines.process.cgroup import enforcement
from edgewright_agent.telemetry.collectors import memory
from edgewright_agent.telemetry.collectors.sysfs import NoDataError, read_text


def memory_is_available(subject: Subject) -> Finding | None:
    """Checks that other programs leave the budget of the board."""
    budget_bytes = subject.memory_budget_bytes
    if budget_bytes is None:
        return None
    try:
        memory_now = memory.read(subject.root)
    except NoDataError:
        return None
    available, budget = format_bytes(memory_now.available_bytes), format_bytes(budget_bytes)
    if memory_now.available_bytes < budget_bytes:
        return warning(
            f"{available} are available, less than the budget of {budget}: a model within the budget may not fit now.",
            "Stop what else takes memory (`ps --sort -rss -eo rss,comm | head`), or start the agent with a smaller "
            "--budget.",
        )
    return ok(f"{available} are available for a budget of {budget}.")


def no_desktop_runs(subject: Subject) -> Finding | None:
    """Checks for a desktop, which takes 800 MB (jetson-ai-lab's memory tips) that a small board needs."""
    if subject.profile is None or (desktop := _boots_into_a_desktop(subject.root)) is None:
        return None
    if desktop:
        return warning(
            "The board boots into a desktop, which takes about 800 MB of its memory.",
            "`sudo systemctl set-default multi-user.target`, and reboot.",
        )
    return ok("The board boots without a desktop.")


def _boots_into_a_desktop(root: Path) -> bool | None:
    """Returns None without systemd. Its own default is the graphical target, which needs a display manager."""
    units = root / "etc/systemd/system"
    if (chosen := units / "default.target").is_symlink():
        return chosen.readlink().name == "graphical.target"
    shipped = [root / folder / "systemd/system/default.target" for folder in ("usr/lib", "lib")]
    default = next((target.readlink().name for target in shipped if target.is_symlink()), None)
    display_manager = units / "display-manager.service"
    return None if default is None else default == "graphical.target" and display_manager.is_symlink()


def swap_is_no_memory(subject: Subject) -> Finding | None:
    """Checks swap: zram takes memory that the model lacks, and on an SD card swap is slow and wears the card out."""
    swaps = (read_text(subject.root / "proc/swaps") or "").splitlines()[1:]
    devices = [line.split() for line in swaps if len(line.split()) >= 3]
    zram_kib = sum(int(fields[2]) for fields in devices if "zram" in fields[0] and fields[2].isdecimal())
    if zram_kib:
        return warning(
            f"zram swap may take up to {zram_kib / 1024:.0f} MiB of the memory the model needs.",
            "On a Jetson `sudo systemctl disable nvzramconfig`, elsewhere disable zramswap; use a swap file on NVMe.",
        )
    cards = [fields[0] for fields in devices if "mmcblk" in fields[0]]
    if cards:
        return warning(
            f"Swap lies on {cards[0]}, an SD card or eMMC: slow, and it wears out.",
            "Put a swap file on NVMe.",
        )
    return ok(
        "Swap is on a disk." if devices else "There is no swap; a model that does not fit is killed at once."
    )


def memory_cgroup_is_on(subject: Subject) -> Finding | None:
    """Checks that the kernel can hold an engine to a limit of memory."""
    text = read_text(subject.root / "proc/cgroups")
    if text is None:
        return None
    match = re.search(r"^memory\s+\d+\s+\d+\s+(\d)", text, re.MULTILINE)
    unified = read_text(subject.root / "sys/fs/cgroup/cgroup.controllers")
    if "memory" in (unified or "").split() or (unified is None and match is not None and match[1] == "1"):
        return ok(f"The kernel can limit an engine's memory{_from_here(subject.root)}.")
    return warning(
        "The kernel's memory cgroup is off: an engine that grows can take the whole board down.",
        "Add `cgroup_enable=memory cgroup_memory=1` to the kernel's command line (Raspberry Pi: "
        "/boot/firmware/cmdline.txt; Jetson: APPEND in /boot/extlinux/extlinux.conf), and reboot.",
    )


def _from_here(root: Path) -> str:
    """Returns what `probe` says of this process. The agent's unit may do what a shell may not."""
    if root != Path("/"):
        return ""
    here = enforcement()
    if here.available:
        return f", and so can this process ({here.detail})"
    return f"; this process may not ({here.detail}), the agent may under its systemd unit"

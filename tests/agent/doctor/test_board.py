"""What the doctor says of boards with one fault each, and that it says nothing of sound ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgewright_agent.doctor.checks import examine
from edgewright_agent.doctor.finding import Finding, Severity, Subject
from tests.agent.doctor.subjects import (
    CGROUPS,
    UNIFIED,
    finding_of,
    subject,
)
from tests.fixtures.boards import write, write_board


def test_a_sound_board_has_no_problem(tmp_path: Path) -> None:
    root = write_board("agx-orin", tmp_path)
    write(root, "proc/cgroups", CGROUPS)
    write(root, UNIFIED, "cpuset cpu io memory pids")
    write(root, "proc/swaps", "Filename Type Size Used Priority\n/swap.img file 16777212 0 -2")
    findings = examine(subject(root))
    assert {name for name, each in findings.items() if each.result is Severity.PROBLEM} == set()
    for name in (
        "profile",
        "memory size",
        "Jetson Linux",
        "power mode",
        "power sensor",
        "swap",
        "memory cgroup",
    ):
        assert findings[name].result is Severity.OK, findings[name]


@pytest.mark.parametrize(
    ("board", "profile", "check", "result", "says", "remedy"),
    [
        ("orin-nano", "jetson-orin-nano-8gb", "Jetson Linux", "problem", "36.4.7.*error 12", "apt"),
        ("orin-nano", "jetson-agx-orin-64gb", "profile", "problem", "jetson-orin-nano-8gb", "--profile"),
        ("orin-nano", "jetson-orin-nano-8gb", "power mode", "ok", "MAXN_SUPER", ""),
        ("nano-l4t32", "jetson-nano-4gb", "power mode", "warning", "5W; MAXN", "nvpmodel -m 0"),
        ("x86-rapl", "jetson-agx-orin-64gb", "profile", "warning", "Nothing on this board says", "probe"),
        ("raspberry-pi-5", "raspberry-pi-5-16gb", "profile", "problem", "raspberry-pi-5-8gb", "--profile"),
        ("raspberry-pi-5", "jetson-orin-nano-8gb", "power sensor", "warning", "ina3221.*not there", "kernel"),
    ],
)
def test_what_a_recorded_board_suffers_from(
    tmp_path: Path, board: str, profile: str, check: str, result: str, says: str, remedy: str
) -> None:
    finding = finding_of(check, subject(write_board(board, tmp_path), profile))
    assert finding.result is Severity(result)
    assert re.search(says, finding.sentence), finding.sentence
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("check", "path", "content", "says"),
    [
        ("memory size", "proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB", "has 8789 MiB"),
        (
            "memory",
            "proc/meminfo",
            "MemTotal: 65000000 kB\nMemAvailable: 8000000 kB",
            "7.63 GiB are available",
        ),
        ("swap", "proc/swaps", "Filename Type Size\n/dev/zram0 partition 635248 0 5", "zram swap .* 620 MiB"),
        ("swap", "proc/swaps", "Filename Type Size\n/dev/mmcblk0p2 partition 635248 0 5", "SD card"),
        ("memory cgroup", UNIFIED, "cpuset cpu io pids", "memory cgroup is off"),
        ("Jetson Linux", "etc/nv_tegra_release", "# a board of one's own", "does not say"),
        ("power sensor", "sys/class/hwmon/hwmon3/in1_label", "VDD_ELSE", "not VDD_GPU_SOC"),
    ],
)
def test_each_fault_of_a_board_gives_one_warning_that_names_it(
    tmp_path: Path, check: str, path: str, content: str, says: str
) -> None:
    root = write_board("agx-orin", tmp_path)
    write(root, "proc/cgroups", CGROUPS)
    write(root, path, content)
    finding = finding_of(check, subject(root))
    assert finding.result is Severity.WARNING
    assert re.search(says, finding.sentence), finding.sentence


def test_a_power_mode_is_not_called_the_highest_where_nobody_knows(tmp_path: Path) -> None:
    write(tmp_path, "var/lib/nvpmodel/status", "pmode:0001")
    modes = "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >\n"
    write(tmp_path, "etc/nvpmodel.conf", modes)
    finding = finding_of("power mode", Subject(root=tmp_path))
    assert finding == Finding(
        Severity.OK, "The power mode is 7W; which of 15W, 7W is the highest is not known."
    )


def test_a_desktop_is_told_to_go(tmp_path: Path) -> None:
    target = tmp_path / "etc/systemd/system/default.target"
    target.parent.mkdir(parents=True)
    target.symlink_to("/lib/systemd/system/graphical.target")
    assert "set-default multi-user.target" in finding_of("desktop", subject(tmp_path)).remedy
    target.unlink()
    target.symlink_to("/lib/systemd/system/multi-user.target")
    assert finding_of("desktop", subject(tmp_path)).result is Severity.OK


def test_a_desktop_that_systemd_boots_by_default_is_seen_by_its_display_manager(tmp_path: Path) -> None:
    shipped = tmp_path / "usr/lib/systemd/system/default.target"
    shipped.parent.mkdir(parents=True)
    shipped.symlink_to("graphical.target")
    assert (
        finding_of("desktop", subject(tmp_path)).result is Severity.OK
    )  # a server: there is nothing to show
    manager = tmp_path / "etc/systemd/system/display-manager.service"
    manager.parent.mkdir(parents=True)
    manager.symlink_to("/usr/lib/systemd/system/gdm.service")
    assert finding_of("desktop", subject(tmp_path)).result is Severity.WARNING

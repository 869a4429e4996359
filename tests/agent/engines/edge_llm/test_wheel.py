"""Whether an installed tensorrt-edgellm fits a board, by the rows of its own table (as of 0.11.0)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.doctor.checks import CHECKS
from edgewright_agent.doctor.finding import Severity, Subject
from edgewright_agent.engines.edge_llm.wheel import COMMAND, COMMAND_VARIABLE, VARIANTS, complaint, find_wheel
from edgewright_profiles import load_profile

# (variant_id, platform_probe_source, platform_probe_values, gpu_sm) of the wheel for aarch64 and CPython 3.12.
ROWS = [
    ("dgx-spark-cu13-sm121", "device-model", ["DGX Spark", "GB10"], 121),
    ("jetson-orin-jp72-cu13-sm87", "l4t", ["R39.2"], 87),
    ("jetson-thor-jp70-cu13-sm110", "l4t", ["R38.2"], 110),
    ("jetson-thor-jp72-cu13-sm110", "l4t", ["R39.2"], 110),
]


def install(folder: Path, rows: Sequence[Any] = ROWS, *, python: str = "3.12", tensorrt: bool = True) -> Path:
    """An environment with the wheel's table and its command."""
    packages = folder / f"lib/python{python}/site-packages"
    (packages / VARIANTS).parent.mkdir(parents=True)
    variants = [
        {
            "variant_id": name, "platform_probe_source": source, "platform_probe_values": values, "gpu_sm": sm,
            "python_abi": "cp312", "cpu_arch": "aarch64",
        }
        for name, source, values, sm in rows
    ]  # fmt: skip
    table = {"package_version": "0.11.0", "variants": variants}
    (packages / VARIANTS).write_text(json.dumps(table), encoding="utf-8")
    if tensorrt:
        (packages / "tensorrt").mkdir()
    command = folder / "bin" / COMMAND
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n", encoding="utf-8")
    command.chmod(0o755)
    return command


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "environment"
    monkeypatch.setenv(COMMAND_VARIABLE, str(folder / "bin" / COMMAND))
    return folder


@pytest.mark.parametrize(
    ("machine", "capability", "release", "why"),
    [
        ("aarch64", "8.7", "39.2.1", None),
        ("aarch64", "11.0", "38.2.0", None),
        ("aarch64", "12.1", None, None),  # a DGX Spark, which the wheel knows by its name
        ("aarch64", "8.7", "36.4.3", "it is for Jetson Linux 39.2, and this is 36.4.3"),
        ("aarch64", "8.7", None, "this is another system"),
        ("aarch64", "11.0", "38.4.0", "it is for Jetson Linux 38.2, 39.2, and this is 38.4.0"),
        (
            "aarch64",
            "7.2",
            "35.5.0",
            "it has code for compute capability 11.0, 12.1, 8.7, and this GPU is 7.2",
        ),
        ("x86_64", "8.7", None, "it is for cp312 on aarch64, and this is cp312 on x86_64"),
    ],
)
def test_a_wheel_fits_the_boards_of_its_rows(
    named: Path, machine: str, capability: str, release: str | None, why: str | None
) -> None:
    install(named)
    wheel = find_wheel()
    assert wheel is not None
    assert wheel.version == "0.11.0"
    found = complaint(wheel, machine, capability, release)
    assert found == why or (why is not None and found is not None and why in found)


def test_a_wheel_behind_a_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "bin" / COMMAND
    link.parent.mkdir()
    link.symlink_to(install(tmp_path / "environment"))
    monkeypatch.setenv(COMMAND_VARIABLE, str(link))
    wheel = find_wheel()
    assert wheel is not None
    assert wheel.environment == tmp_path / "environment"


def test_another_python_and_a_missing_tensorrt_are_told(named: Path, tmp_path: Path) -> None:
    install(named, python="3.10")
    wheel = find_wheel()
    assert wheel is not None
    assert "this is cp310 on aarch64" in (complaint(wheel, "aarch64", "8.7", "39.2.1") or "")


def test_without_tensorrt_no_engine_could_be_built(named: Path) -> None:
    install(named, tensorrt=False)
    wheel = find_wheel()
    assert wheel is not None
    assert "TensorRT's Python package" in (complaint(wheel, "aarch64", "8.7", "39.2.1") or "")


def test_without_the_wheel_there_is_nothing_to_say(named: Path, tmp_path: Path) -> None:
    assert find_wheel() is None
    subject = Subject(root=tmp_path, profile=load_profile("jetson-orin-nano-8gb"), start_engines=False)
    assert CHECKS["tensorrt-edge-llm"](subject) is None


@pytest.mark.parametrize(
    ("release", "result"),
    [
        ("# R39 (release), REVISION: 2.1, GCID: 1", Severity.OK),
        ("# R36 (release), REVISION: 4.3, GCID: 1", Severity.PROBLEM),
    ],
)
def test_the_doctor_says_whether_the_jetpack_is_the_wheel_s(
    named: Path, tmp_path: Path, release: str, result: Severity
) -> None:
    install(named)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(release, encoding="utf-8")
    subject = Subject(root=tmp_path, profile=load_profile("jetson-orin-nano-8gb"), start_engines=False)
    finding = CHECKS["tensorrt-edge-llm"](subject)
    assert finding is not None
    assert finding.result is result
    assert "tensorrt-edgellm 0.11.0" in finding.sentence

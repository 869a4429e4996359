from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edgewright_agent.doctor.probe import BoardFacts, guess_profile, probe, render
from edgewright_agent.engines import EngineInfo
from edgewright_agent.runtime.jetson_linux import parse_l4t
from edgewright_agent.telemetry import SensorStatus
from tests.fixtures.boards import write, write_board

ENGINES = (
    EngineInfo("onnxruntime-genai", "0.18.0", True, ""),
    EngineInfo("vllm", "", False, "not installed"),
)


def probed(board: str, root: Path) -> BoardFacts:
    return probe(write_board(board, root), engines=lambda: ENGINES)


@pytest.mark.parametrize(
    ("board", "profile", "l4t", "mode"),
    [
        ("orin-nano", "jetson-orin-nano-8gb", "36.4.7", "MAXN_SUPER"),
        ("agx-orin", "jetson-agx-orin-64gb", "36.4.3", "MAXN"),
        ("thor", "jetson-agx-thor-t5000", "38.2.2", None),
        ("nano-l4t32", "jetson-nano-4gb", "32.7.4", "5W"),
        ("raspberry-pi-5", "raspberry-pi-5-8gb", None, None),
        ("x86-rapl", "n100-mini-pc", None, None),
    ],
)
def test_the_probe_knows_the_board(
    tmp_path: Path, board: str, profile: str, l4t: str | None, mode: str | None
) -> None:
    found = probed(board, tmp_path)
    assert (found.profile_id, found.l4t, found.power_mode) == (profile, l4t, mode)
    assert found.engines == ENGINES


ORIN_CORE = (
    "BogoMIPS\t: 62.50\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd42\nCPU revision\t: 1\n"
)


@pytest.mark.parametrize(
    ("cpuinfo", "name", "cores"),
    [
        ("".join(f"processor\t: {n}\n{ORIN_CORE}\n" for n in range(6)), "Cortex-A78AE", 6),
        (
            "".join(f"processor\t: 0\n{ORIN_CORE.replace('d42', part)}\n" for part in ("d05", "d05", "d0b")),
            "2 × Cortex-A55 + 1 × Cortex-A76", 3,
        ),
        (f"processor\t: 0\n{ORIN_CORE.replace('d42', 'fff')}", "implementer 0x41, part 0xfff", 1),
        ("processor\t: 0\nmodel name\t: ARMv7 Processor rev 4\n\nHardware\t: BCM2835\n", "ARMv7 Processor rev 4", 1),
    ],
)  # fmt: skip
def test_a_cpu_has_its_name_and_all_its_cores(tmp_path: Path, cpuinfo: str, name: str, cores: int) -> None:
    write(tmp_path, "proc/cpuinfo", cpuinfo)
    found = probe(tmp_path, engines=lambda: ())
    assert (found.cpu, found.cpu_cores) == (name, cores)


def test_a_power_sensor_that_gives_no_value_does_not_answer(tmp_path: Path) -> None:
    found = {sensor.name: sensor for sensor in probed("orin-nano", tmp_path).sensors}
    assert found["ina3221"].available
    (chip,) = (path.parent for path in tmp_path.glob("sys/class/hwmon/hwmon*/in1_label"))
    (chip / "curr1_input").write_text("")  # as a driver that reads nothing leaves it
    found = {sensor.name: sensor for sensor in probe(tmp_path, engines=lambda: ENGINES).sensors}
    assert not found["ina3221"].available
    assert "VDD_IN" in found["ina3221"].detail


def test_a_channel_that_is_switched_off_is_no_rail(tmp_path: Path) -> None:
    root = write_board("orin-nano", tmp_path)
    (chip,) = (path.parent for path in root.glob("sys/class/hwmon/hwmon*/in3_label"))
    (chip / "in3_enable").write_text("0\n")
    (chip / "in3_input").write_text("")
    found = {sensor.name: sensor for sensor in probe(root, engines=lambda: ENGINES).sensors}
    assert found["ina3221"].available
    assert (chip / "in3_label").read_text().strip() not in found["ina3221"].detail


def test_of_two_profiles_with_one_module_number_the_memory_decides() -> None:
    compatible = ["nvidia,p3737-0000+p3701-0000"]
    assert guess_profile("", compatible, "", 30536 * 2**20)[0].id == "jetson-agx-orin-32gb"
    assert guess_profile("", compatible, "", 62800 * 2**20)[0].id == "jetson-agx-orin-64gb"
    assert guess_profile("Raspberry Pi 5 Model B", [], "", 16300 * 2**20)[0].id == "raspberry-pi-5-16gb"


def test_an_unknown_board_is_this_host(tmp_path: Path) -> None:
    found = probe(tmp_path, engines=lambda: ())
    assert (found.profile_id, found.board_model, found.memory) == ("this-host", "", None)
    assert "no device profile" in found.profile_reason
    assert not any(sensor.available for sensor in found.sensors)


def test_a_faulty_jetson_linux_is_warned_of(tmp_path: Path) -> None:
    assert any("36.4.7" in warning for warning in probed("orin-nano", tmp_path).warnings)


def test_memory_that_the_profile_does_not_expect_is_warned_of(tmp_path: Path) -> None:
    root = write_board("thor", tmp_path)
    write(root, "proc/meminfo", "MemTotal: 60000000 kB\nMemAvailable: 50000000 kB")
    (warning,) = probe(root, engines=lambda: ENGINES).warnings
    assert "58594 MiB" in warning
    assert "125772 MiB" in warning


@pytest.mark.parametrize("text", ["", "# R36", "garbage"])
def test_a_release_file_we_cannot_read_is_no_release(text: str) -> None:
    assert parse_l4t(text) is None


def test_the_probe_reads_well_and_as_json(tmp_path: Path) -> None:
    found = probed("orin-nano", tmp_path)
    out = io.StringIO()
    Console(file=out, width=140).print(render(found))
    for piece in ("jetson-orin-nano-8gb", "MAXN_SUPER", "VDD_IN, VDD_CPU_GPU_CV, VDD_SOC", "not installed"):
        assert piece in out.getvalue()
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["memory"]["total_bytes"] == 7802880 * 1024
    assert plain["engines"][0]["available"] is True


def test_what_stands_in_brackets_is_printed_as_it_is(tmp_path: Path) -> None:
    missing = EngineInfo("onnxruntime-genai", "", False, "numpy is missing: pip install 'edgewright[onnx]'")
    root = write_board("orin-nano", tmp_path)
    write(root, "proc/device-tree/model", "A board [red]")
    found = probe(root, engines=lambda: [missing])
    sensor = SensorStatus("nvml", False, "pip install 'edgewright[nvml]'")
    out = io.StringIO()
    Console(file=out, width=200).print(render(replace(found, sensors=(sensor,))))
    for piece in ("edgewright[onnx]", "edgewright[nvml]", "A board [red]"):
        assert piece in out.getvalue()


def test_the_running_machine_can_be_probed() -> None:
    found = probe()
    assert found.memory is not None
    assert found.memory.total_bytes > 0
    assert {engine.kind for engine in found.engines} >= {"onnxruntime-genai"}

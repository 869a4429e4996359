from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgewright_agent.telemetry.collectors import (
    clocks,
    free_blocks,
    gpu_load,
    ina2xx,
    ina3221,
    memory,
    nvml,
    nvpmodel,
    pressure,
    rapl,
    thermal,
    throttling,
)
from edgewright_agent.telemetry.collectors.registry import ENERGY_SOURCES, GAUGES, discover_rails, read_gauges
from edgewright_agent.telemetry.collectors.sysfs import NoDataError
from edgewright_agent.telemetry.types import Clock, MemoryPressure, Temperature, Throttling
from tests.fixtures.boards import write, write_board

Board = Callable[[str], Path]


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return lambda name: write_board(name, tmp_path)


def watts(rails: tuple[Any, ...]) -> dict[str, float | None]:
    return {rail.name: rail.read() for rail in rails}


def test_orin_nano_rails_are_volts_times_amperes_and_the_shunt_sum_is_no_rail(board: Board) -> None:
    rails = ina3221.discover(board("orin-nano"))
    assert watts(rails) == pytest.approx({"VDD_IN": 5.056, "VDD_CPU_GPU_CV": 0.484608, "VDD_SOC": 1.453824})
    assert not any(rail.is_counter for rail in rails)


def test_unconnected_channels_of_agx_orin_are_no_rails(board: Board) -> None:
    rails = ina3221.discover(board("agx-orin"))
    assert watts(rails) == pytest.approx(
        {"VDD_GPU_SOC": 5.19584, "VDD_CPU_CV": 1.19904, "VIN_SYS_5V0": 5.0, "VDDQ_VDD2_1V8AO": 0.6}
    )


def test_the_kernels_own_ina3221_driver_is_read_as_it_was_recorded(board: Board) -> None:
    rails = ina3221.discover(board("recorded-orin-nano"))
    assert watts(rails) == pytest.approx({"VDD_IN": -0.04, "VDD_CPU_GPU_CV": 8.12, "VDD_SOC": 8.28})
    rails = ina3221.discover(board("recorded-agx-orin"))  # where two channels are disabled and answer ENODATA
    assert watts(rails) == pytest.approx(
        {"VDD_GPU_SOC": 0.0, "VDD_CPU_CV": 8.1, "VIN_SYS_5V0": 8.3, "VDDQ_VDD2_1V8AO": 8.1}
    )


def test_the_kernels_own_ina238_driver_is_read_as_it_was_recorded(board: Board) -> None:
    rails, _ = discover_rails(board("recorded-thor"))
    assert watts(rails) == pytest.approx(
        {"VDD_GPU": 0.0, "VDD_CPU_SOC_MSS": 8.1, "VIN_SYS_5V0": 8.3, "VIN": 0.09}
    )


def test_the_kernels_own_ina226_driver_is_read_under_its_label(board: Board) -> None:
    root = board("recorded-orin-nano")
    (chip,) = {path.parent for path in root.glob("sys/class/hwmon/*/label")}
    write(root, f"{chip.relative_to(root)}/power1_input", 6_031_250)
    assert watts(ina2xx.discover_ina2xx(root)) == {"CARRIER": 6.03125}
    (chip / "label").unlink()
    assert watts(ina2xx.discover_ina2xx(root)) == {"ina226": 6.03125}
    rails, _ = discover_rails(root)
    assert [rail.name for rail in rails] == ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC", "ina226"]


def test_alarms_limits_samples_and_shunt_voltages_are_no_rails(board: Board) -> None:
    root = board("orin-nano")
    for name, value in (("curr1_crit", 1), ("curr1_crit_alarm", 1), ("in4_input", 9_960_000), ("samples", 1)):
        write(root, f"sys/class/hwmon/hwmon1/{name}", value)
    assert watts(ina3221.discover(root)) == pytest.approx(
        {"VDD_IN": 5.056, "VDD_CPU_GPU_CV": 0.484608, "VDD_SOC": 1.453824}
    )


def test_a_current_one_step_below_nothing_is_read_as_it_is(board: Board) -> None:
    root = board("orin-nano")
    write(root, "sys/class/hwmon/hwmon1/curr2_input", -8)
    assert watts(ina3221.discover(root))["VDD_CPU_GPU_CV"] == pytest.approx(-0.040384)


@pytest.mark.parametrize("file", ["in1_input", "curr1_input"])
def test_a_channel_that_answers_with_an_error_gives_nothing(board: Board, file: str) -> None:
    root = board("orin-nano")
    write(root, f"sys/class/hwmon/hwmon1/{file}", "!ENODATA")
    assert watts(ina3221.discover(root))["VDD_IN"] is None


@pytest.mark.parametrize("enable", [0, "!ENODATA"])
def test_a_channel_switched_off_while_it_is_read_goes_silent_and_then_is_no_rail(
    board: Board, enable: object
) -> None:
    root = board("orin-nano")
    vdd_in = ina3221.discover(root)[0]
    for name, value in (("in1_enable", enable), ("in1_input", "!ENODATA"), ("curr1_input", "!ENODATA")):
        write(root, f"sys/class/hwmon/hwmon1/{name}", value)
    assert vdd_in.read() is None
    assert watts(ina3221.discover(root)).get("VDD_IN") is None


def test_a_shunt_sum_in_a_channel_of_an_old_kernel_is_no_rail(board: Board) -> None:
    root = board("orin-nano")
    write(root, "sys/class/hwmon/hwmon1/in3_label", "sum of shunt voltages")
    assert set(watts(ina3221.discover(root))) == {"VDD_IN", "VDD_CPU_GPU_CV"}


def test_the_nano_has_the_old_driver_with_the_old_names(board: Board) -> None:
    rails = ina3221.discover(board("nano-l4t32"))
    assert watts(rails) == pytest.approx({"POM_5V_IN": 2.543, "POM_5V_GPU": 0.08, "POM_5V_CPU": 0.48})


def test_thor_has_its_input_on_an_ina238(board: Board) -> None:
    root = board("thor")
    assert watts(ina2xx.discover_ina238(root)) == pytest.approx({"VIN": 30.024})
    rails, _ = discover_rails(root)
    assert [rail.name for rail in rails] == ["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0", "VIN"]


def test_a_rail_that_stops_answering_gives_nothing_not_zero(board: Board) -> None:
    root = board("orin-nano")
    vdd_in = ina3221.discover(root)[0]
    (root / "sys/class/hwmon/hwmon1/curr1_input").unlink()
    assert vdd_in.read() is None


def test_rapl_zones_keep_their_package_and_mmio_is_not_counted_twice(board: Board) -> None:
    rails = rapl.discover(board("x86-rapl"))
    assert [rail.name for rail in rails] == ["package-0", "package-0/core", "psys"]
    assert all(rail.is_counter for rail in rails)
    assert rails[0].wraps_at_joules == pytest.approx(262143.32885)
    assert rails[2].read() == pytest.approx(5.0)


def test_rapl_that_may_not_be_read_says_so(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    root = board("x86-rapl")
    read_bytes = Path.read_bytes

    def denied(path: Path) -> bytes:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", denied)  # root may read everything, so chmod would not do
    rails, sensors = discover_rails(root)
    assert rails == ()
    said = {sensor.name: sensor for sensor in sensors}["rapl"]
    assert not said.available
    assert "Permission denied" in said.detail


class NvmlError(Exception):
    pass


def fake_nvml(energy: float | None, power: float | None) -> Any:
    def value(number: float | None) -> Callable[[int], float]:
        def query(device: int) -> float:
            if number is None:
                raise NvmlError("Not Supported")
            return number

        return query

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=value(energy),
        nvmlDeviceGetPowerUsage=value(power),
    )


def test_nvml_counts_energy_where_the_gpu_does() -> None:
    (rail,) = nvml.rails_of(fake_nvml(energy=123_456.0, power=50_000.0))
    assert (rail.name, rail.is_counter) == ("gpu0", True)
    assert rail.read() == pytest.approx(123.456)


def test_nvml_falls_back_to_power() -> None:
    (rail,) = nvml.rails_of(fake_nvml(energy=None, power=50_000.0))
    assert not rail.is_counter
    assert rail.read() == pytest.approx(50.0)


def test_nvml_that_starts_and_supports_nothing_is_absent() -> None:
    with pytest.raises(NoDataError, match="1 GPUs and supports neither"):
        nvml.rails_of(fake_nvml(energy=None, power=None))


def test_memory_is_bytes(board: Board) -> None:
    found = memory.read(board("orin-nano"))
    assert found.total_bytes == 7802880 * 1024
    assert found.available_bytes == 6291456 * 1024
    assert found.swap_used_bytes == (3901440 - 3888128) * 1024


@pytest.mark.parametrize(
    "text", ["", "MemTotal: 5 kB\n", "MemTotal: x kB\nMemAvailable: 5 kB\n", "SwapTotal:\n"]
)
def test_a_meminfo_without_the_fields_is_no_data(text: str) -> None:
    with pytest.raises(NoDataError, match="meminfo"):
        memory.parse(text)


def test_temperatures_come_in_the_zones_order_and_a_part_that_is_off_has_none(board: Board) -> None:
    assert thermal.read(board("orin-nano")) == (
        Temperature("cpu-thermal", 47.281),
        Temperature("gpu-thermal", 46.375),
        Temperature("tj-thermal", 48.5),
    )


@pytest.mark.parametrize(("name", "load"), [("orin-nano", 0.733), ("agx-orin", 1.0), ("nano-l4t32", 0.25)])
def test_gpu_load_is_found_under_each_boards_name(board: Board, name: str, load: float) -> None:
    assert gpu_load.read(board(name)) == pytest.approx(load)


def test_thors_load_is_in_no_file_and_nvml_is_asked(board: Board) -> None:
    with pytest.raises(NoDataError, match="no devfreq GPU with a load; NVML"):
        gpu_load.read(board("thor"))
    busy = fake_nvml(energy=None, power=None)
    busy.nvmlDeviceGetUtilizationRates = lambda device: SimpleNamespace(gpu=97)
    assert nvml.load_of(busy) == pytest.approx(0.97)


def test_a_gpu_whose_load_nvml_does_not_support_has_none() -> None:
    def unsupported(device: int) -> Any:
        raise NvmlError("Not Supported")

    silent = fake_nvml(energy=None, power=None)
    silent.nvmlDeviceGetUtilizationRates = unsupported
    with pytest.raises(NoDataError, match="no GPU's load"):
        nvml.load_of(silent)


def test_thors_gpu_clock_is_of_the_part_that_computes_and_its_memorys_is_the_bandwidth_managers(
    board: Board,
) -> None:
    assert clocks.read(board("thor")) == (Clock("emc", 4_266_000_000), Clock("gpu", 1_575_000_000))


def test_names_that_repeat_are_numbered_whether_or_not_the_first_answers(board: Board) -> None:
    root = board("orin-nano")
    for zone, value in ((20, "-256000"), (21, "40000"), (22, "71000")):
        write(root, f"sys/class/thermal/thermal_zone{zone}/type", "acpitz")
        write(root, f"sys/class/thermal/thermal_zone{zone}/temp", value)
    write(root, "sys/class/devfreq/18000000.gpu/cur_freq", "408000000")
    assert thermal.read(root)[-2:] == (Temperature("acpitz-1", 40.0), Temperature("acpitz-2", 71.0))
    assert [clock.unit for clock in clocks.read(root)] == ["cpu0", "cpu5", "gpu", "gpu-1", "emc"]


def test_rails_of_one_name_on_two_chips_are_numbered(board: Board) -> None:
    root = board("thor")
    write(root, "sys/class/hwmon/hwmon7/name", "ina238")
    write(root, "sys/class/hwmon/hwmon7/power1_input", 7_000_000)
    rails, sensors = discover_rails(root)
    assert watts(rails[-2:]) == pytest.approx({"VIN": 30.024, "VIN-1": 7.0})
    assert {sensor.name: sensor.detail for sensor in sensors}["ina238"] == "VIN, VIN-1"


def test_clocks_are_hertz(board: Board) -> None:
    assert clocks.read(board("orin-nano")) == (
        Clock("cpu0", 1_728_000_000),
        Clock("cpu5", 729_600_000),
        Clock("gpu", 918_000_000),
        Clock("emc", 3_199_000_000),
    )


def test_throttling_is_counted_by_cause(board: Board) -> None:
    assert throttling.read(board("orin-nano")) == (
        Throttling("under_voltage", 0),
        Throttling("average_over_current", 15),
        Throttling("momentary_over_current", 37),
    )
    assert throttling.read(board("x86-rapl"))[-1] == Throttling("core_temperature", 5)


def test_a_board_that_does_not_count_its_throttling_has_no_figure_for_it(board: Board) -> None:
    with pytest.raises(NoDataError, match="counts events"):
        throttling.read(board("raspberry-pi-5"))


@pytest.mark.parametrize(
    ("name", "mode"), [("orin-nano", "MAXN_SUPER"), ("agx-orin", "MAXN"), ("nano-l4t32", "5W")]
)
def test_the_power_mode_is_a_name(board: Board, name: str, mode: str) -> None:
    assert nvpmodel.read(board(name)) == mode


def test_a_power_mode_without_a_name_is_no_data(board: Board) -> None:
    root = board("orin-nano")
    write(root, "var/lib/nvpmodel/status", "pmode:0009")
    with pytest.raises(NoDataError, match="power mode 9 is not named"):
        nvpmodel.read(root)


def test_a_bare_machine_has_no_sensor_and_every_collector_says_why(tmp_path: Path) -> None:
    rails, energy = discover_rails(tmp_path)
    values, gauges = read_gauges(tmp_path)
    assert rails == ()
    assert values == {}
    assert [sensor.name for sensor in (*energy, *gauges)] == [*ENERGY_SOURCES, *GAUGES]
    assert all(not sensor.available and sensor.detail for sensor in (*energy, *gauges))


def test_garbage_in_a_file_silences_that_file_only(board: Board) -> None:
    root = board("orin-nano")
    write(root, "sys/class/thermal/thermal_zone0/temp", "hot")
    write(root, "sys/class/devfreq/17000000.gpu/device/load", "")
    values, sensors = read_gauges(root)
    assert len(values["thermal"]) == 2
    assert "gpu_load" not in values
    assert {sensor.name for sensor in sensors if not sensor.available} == {"gpu_load"}


def test_the_gpus_share_of_the_memory_is_read_where_the_kernel_tells(board: Board) -> None:
    assert memory.read(board("orin-nano")).nvmap_used_bytes == 512 * 2**20
    assert memory.read(board("thor")).nvmap_used_bytes is None


def test_memory_pressure_is_ratios_and_seconds(board: Board) -> None:
    assert pressure.read(board("orin-nano")) == MemoryPressure(0.025, 0.005, 1.234567, 0.234567)


@pytest.mark.parametrize(
    "text", ["", "some avg10=1.0", "some avg10=x total=1\nfull avg10=0 total=0", "nonsense"]
)
def test_pressure_that_is_not_understood_is_no_pressure(tmp_path: Path, text: str) -> None:
    write(tmp_path, "proc/pressure/memory", text)
    with pytest.raises(NoDataError, match="pressure"):
        pressure.read(tmp_path)


def test_largest_free_blocks_are_summed_over_zones(board: Board) -> None:
    blocks = free_blocks.read(board("orin-nano"))
    assert (blocks.count, blocks.block_bytes) == (417, 1024 * free_blocks.PAGE_BYTES)


@pytest.mark.parametrize("text", ["", "Node 0, zone Normal 1 2\nNode 0, zone DMA 1", "Node 0, zone Normal x"])
def test_free_blocks_that_are_not_understood_are_not_counted(tmp_path: Path, text: str) -> None:
    write(tmp_path, "proc/buddyinfo", text)
    with pytest.raises(NoDataError, match="buddyinfo"):
        free_blocks.read(tmp_path)

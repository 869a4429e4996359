"""Power sensors that come late, go silent, or come back as other files: what is told is never made up."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from edgewright_agent.telemetry import EnergyRail
from edgewright_agent.telemetry.exporters.otlp import instrument
from edgewright_agent.telemetry.exporters.prometheus import BoardCollector, Sources
from edgewright_agent.telemetry.sampling.monitor import Telemetry
from edgewright_agent.telemetry.types import Deployment, SensorStatus
from edgewright_profiles import load_profile
from tests.agent.telemetry.test_telemetry import Clock, on_board, run
from tests.fixtures.boards import write, write_board

HWMON = "sys/class/hwmon"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def orin_nano(root: Path, clock: Clock) -> Telemetry:
    return on_board("orin-nano", "jetson-orin-nano-8gb", root, clock)


def rails(telemetry: Telemetry) -> dict[str, EnergyRail]:
    return {rail.name: rail for rail in telemetry.snapshot().energy}


def sensor(telemetry: Telemetry, name: str) -> SensorStatus:
    return next(sensor for sensor in telemetry.snapshot().sensors if sensor.name == name)


def scraped(telemetry: Telemetry) -> str:
    registry = CollectorRegistry()
    sources = Sources(telemetry.snapshot, lambda: Deployment("idle", None), telemetry.subscribe)
    registry.register(BoardCollector(sources))
    return generate_latest(registry).decode()


def exported_rails(telemetry: Telemetry) -> set[str]:
    reader = InMemoryMetricReader()
    stop = instrument(reader, telemetry.snapshot, telemetry.subscribe)
    data = reader.get_metrics_data()
    stop()
    if data is None:
        return set()
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    return {
        str((point.attributes or {})["hw.id"])
        for metric in metrics
        if metric.name == "hw.energy"
        for point in metric.data.data_points
    }


def test_a_chip_that_comes_back_under_another_number_goes_on_with_its_joules_and_a_gap(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = orin_nano(tmp_path, clock)
    telemetry.sample()
    run(telemetry, clock, 3.0)
    before = rails(telemetry)["VDD_IN"]
    (tmp_path / HWMON / "hwmon1").rename(tmp_path / "unloaded")
    run(telemetry, clock, 5.0)
    assert telemetry.snapshot().energy == ()
    assert not sensor(telemetry, "ina3221").available
    (tmp_path / "unloaded").rename(tmp_path / HWMON / "hwmon9")
    telemetry.sample()
    run(telemetry, clock, 2.0)
    after = rails(telemetry)["VDD_IN"]
    assert before.joules == pytest.approx(5.056 * 3.0)
    assert after.joules == pytest.approx(5.056 * 5.0)
    assert (before.gaps, after.gaps) == (0, 1)
    assert after.watts == pytest.approx(5.056)
    assert sensor(telemetry, "ina3221").available
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("the sensor ina3221 no longer answers: no INA3221")


def test_chips_that_change_places_keep_their_rails(tmp_path: Path, clock: Clock) -> None:
    telemetry = on_board("agx-orin", "jetson-agx-orin-64gb", tmp_path, clock)
    run(telemetry, clock, 1.5)
    before = {name: rail.watts for name, rail in rails(telemetry).items()}
    one, two = (
        file.parent for file in sorted((tmp_path / HWMON).glob("*/name")) if file.read_text() == "ina3221\n"
    )
    one.rename(tmp_path / "aside")
    two.rename(one)
    (tmp_path / "aside").rename(two)
    run(telemetry, clock, 1.5)
    assert {name: rail.watts for name, rail in rails(telemetry).items()} == pytest.approx(before)


def test_a_chip_that_comes_after_the_agent_is_found_and_speaks_for_the_board(
    tmp_path: Path, clock: Clock
) -> None:
    chip = write_board("orin-nano", tmp_path) / HWMON / "hwmon1"
    chip.rename(tmp_path / "loaded later")
    telemetry = Telemetry(load_profile("jetson-orin-nano-8gb"), tmp_path, clock=clock)
    run(telemetry, clock, 1.0)
    assert telemetry.energy() is None
    (tmp_path / "loaded later").rename(chip)
    run(telemetry, clock, 1.5)
    best = telemetry.energy()
    assert best is not None
    assert (best.name, best.whole_module, best.gaps) == ("VDD_IN", True, 0)
    assert sensor(telemetry, "ina3221") == SensorStatus("ina3221", True, "VDD_IN, VDD_CPU_GPU_CV, VDD_SOC")


def test_the_sum_that_is_the_module_begins_when_its_last_part_is_found(tmp_path: Path, clock: Clock) -> None:
    labels = (write_board("agx-orin", tmp_path) / HWMON).glob("*/in*_label")
    chip = next(label.parent for label in labels if "VIN_SYS" in label.read_text())
    chip.rename(tmp_path / "loaded later")
    telemetry = Telemetry(load_profile("jetson-agx-orin-64gb"), tmp_path, clock=clock)
    run(telemetry, clock, 1.0)
    best = telemetry.energy()
    assert best is not None
    assert not best.whole_module
    (tmp_path / "loaded later").rename(chip)
    run(telemetry, clock, 1.5)
    best = telemetry.energy()
    assert best is not None
    assert (best.name, best.whole_module) == ("VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0", True)
    assert best.watts == pytest.approx(11.39488)


def test_a_rail_that_never_answers_has_no_joules_anywhere_and_its_sensor_says_who(
    tmp_path: Path, clock: Clock
) -> None:
    telemetry = orin_nano(tmp_path, clock)
    write(tmp_path, f"{HWMON}/hwmon1/curr1_input", "!ENODATA")
    run(telemetry, clock, 3.0)
    assert set(rails(telemetry)) == {"VDD_CPU_GPU_CV", "VDD_SOC"}
    assert exported_rails(telemetry) == {"VDD_CPU_GPU_CV", "VDD_SOC"}
    assert sensor(telemetry, "ina3221") == SensorStatus("ina3221", False, "no answer from VDD_IN")
    text = scraped(telemetry)
    assert 'rail="VDD_SOC"' in text
    assert 'rail="VDD_IN"' not in text
    assert 'edgewright_sensor_available{sensor="ina3221"} 0.0' in text
    assert telemetry.sample_energy() is None


def test_a_rail_that_falls_silent_is_absent_and_comes_back_where_it_stood(
    tmp_path: Path, clock: Clock
) -> None:
    telemetry = orin_nano(tmp_path, clock)
    telemetry.sample()
    run(telemetry, clock, 2.0)
    write(tmp_path, f"{HWMON}/hwmon1/curr1_input", "")
    run(telemetry, clock, 3.0)
    assert "VDD_IN" not in rails(telemetry)
    assert not sensor(telemetry, "ina3221").available
    write(tmp_path, f"{HWMON}/hwmon1/curr1_input", 1000)
    run(telemetry, clock, 0.1)
    back = rails(telemetry)["VDD_IN"]
    assert back.joules == pytest.approx(5.056 * 2.0)
    assert back.gaps == 1
    assert sensor(telemetry, "ina3221").available


def test_a_rail_that_rests_below_nothing_shows_that_and_its_joules_never_fall(
    tmp_path: Path, clock: Clock
) -> None:
    telemetry = orin_nano(tmp_path, clock)
    run(telemetry, clock, 2.0)
    before = rails(telemetry)["VDD_SOC"].joules
    write(tmp_path, f"{HWMON}/hwmon1/curr3_input", -8)
    run(telemetry, clock, 0.2)
    stepped = rails(telemetry)["VDD_SOC"].joules
    run(telemetry, clock, 3.0)
    after = rails(telemetry)["VDD_SOC"]
    assert before < stepped == after.joules
    assert after.watts == pytest.approx(-0.040384)
    assert 'edgewright_power_watts{rail="VDD_SOC",scope="part"} -0.04' in scraped(telemetry)
    assert f'edgewright_energy_joules_total{{rail="VDD_SOC",scope="part"}} {after.joules}' in scraped(
        telemetry
    )

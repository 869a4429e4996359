from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from edgewright.errors import InputError
from edgewright.v1.deployment_pb2 import EngineInfo, GetDeviceResponse
from edgewright.v1.telemetry_pb2 import EnergyRail, Snapshot
from edgewright_agent.telemetry.collectors.registry import ENERGY_SOURCES
from edgewright_builder.cli.host.profiles import app
from edgewright_builder.device_client.profile_draft import draft_of
from edgewright_profiles import load_profile
from edgewright_profiles.schema import ProfileSensor

ORIN = GetDeviceResponse(
    board_model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    profile_id="jetson-orin-nano-8gb", hostname="board-7", machine="aarch64", cpu_cores=6,
    memory_total_bytes=7802880 * 1024, memory_available_bytes=6291456 * 1024,
    engines=[EngineInfo(kind="onnxruntime-genai", version="0.18.0", available=True)],
)  # fmt: skip
SNAPSHOT = Snapshot(power_mode="25W", energy=[EnergyRail(name="VDD_IN", source="ina3221", whole_module=True)])


def test_the_draft_of_this_machine_is_a_profile(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["detect"])
    assert result.exit_code == 0, result.exception
    path = tmp_path / "my-board.yaml"
    path.write_text(result.stdout)
    assert load_profile(path).memory.seen_bytes.confidence == "measured"


def test_the_draft_of_a_board_marks_what_was_measured_and_names_the_nearest_profile() -> None:
    draft = draft_of(ORIN, SNAPSHOT)
    assert draft.document["memory"]["seen_bytes"]["value"] == 7802880 * 1024
    assert draft.document["memory"]["seen_bytes"]["confidence"] == "measured"
    assert draft.document["sensors"] == [
        {
            "kind": "ina3221",
            "rails": {
                "value": ["VDD_IN"],
                "source": "the agent on board-7, asked by `edgewright profiles detect`",
                "confidence": "measured",
            },
        }
    ]
    assert draft.nearest.id == "jetson-orin-nano-8gb"


@pytest.mark.parametrize("source", ENERGY_SOURCES)
def test_every_power_sensor_that_an_agent_reads_may_stand_in_a_profile(source: str) -> None:
    (sensor,) = draft_of(ORIN, Snapshot(energy=[EnergyRail(name="VIN", source=source)])).document["sensors"]
    assert ProfileSensor.model_validate(sensor).kind == source


def test_a_draft_with_a_figure_missing_is_refused_as_a_profile_and_the_figure_named(tmp_path: Path) -> None:
    path = tmp_path / "my-board.yaml"
    path.write_text(yaml.safe_dump(draft_of(ORIN, SNAPSHOT).document))
    with pytest.raises(InputError, match="nominal_bytes"):
        load_profile(path)

"""Results have every field of the messages they are made of, and none that is not there."""

from __future__ import annotations

from dataclasses import fields

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import inference_pb2 as inference
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright_builder.device_client.messages import from_message, printable
from edgewright_builder.push.push import MemoryAdmission
from edgewright_builder.python_api.results import bench, board, generation, storage
from edgewright_builder.python_api.results import telemetry as shown_telemetry

PAIRS: list[tuple[type, type[Message], set[str]]] = [
    (board.BoardStatus, deployment.GetDeviceResponse, {"releases"}),
    (board.BoardRelease, deployment.Release, set()),
    (board.EngineStatus, deployment.EngineInfo, set()),
    (storage.GarbageCollection, deployment.CollectGarbageResponse, {"deleted_releases", "dry_run"}),
    (storage.ScrubResult, deployment.ScrubStoreResponse, set()),
    (MemoryAdmission, deployment.MemoryVerdict, set()),
    (shown_telemetry.TelemetrySnapshot, telemetry.Snapshot, {"host"}),
    (shown_telemetry.ServingFigures, telemetry.Serving, set()),
    (shown_telemetry.MemoryFigures, telemetry.Memory, set()),
    (shown_telemetry.MemoryPressureFigures, telemetry.MemoryPressure, set()),
    (shown_telemetry.LatencyDistribution, telemetry.Distribution, set()),
    (shown_telemetry.EnergyReading, telemetry.EnergyRail, set()),
    (shown_telemetry.TemperatureReading, telemetry.Temperature, set()),
    (shown_telemetry.ClockReading, telemetry.Clock, set()),
    (shown_telemetry.ThrottlingCount, telemetry.Throttling, set()),
    (shown_telemetry.SensorState, telemetry.Sensor, set()),
    (bench.BenchRun, telemetry.BenchmarkResult, set()),
    (bench.BenchEnergy, telemetry.BenchmarkEnergy, set()),
    (bench.PhaseEnergyFigures, telemetry.PhaseEnergy, set()),
    (generation.Completion, inference.Completion, {"text"}),
    (generation.RequestEnergy, inference.EnergyWindow, set()),
]


@pytest.mark.parametrize(
    ("result", "message", "own"), PAIRS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_result_has_the_fields_of_its_message(result: type, message: type[Message], own: set[str]) -> None:
    assert {field.name for field in fields(result)} == {*message.DESCRIPTOR.fields_by_name, *own}


def test_absent_is_none_and_zero_is_zero() -> None:
    memory = from_message(shown_telemetry.MemoryFigures, telemetry.Memory(engine_bytes=0))
    assert (memory.engine_bytes, memory.engine_peak_bytes, memory.total_bytes) == (0, None, 0)


@pytest.mark.parametrize(
    ("number", "word"), [(5, "denied"), (3, "active"), (0, "unspecified"), (77, "unknown")]
)
def test_an_enumeration_is_its_word(number: int, word: str) -> None:
    message = deployment.Release.FromString(deployment.Release(state=number).SerializeToString())  # type: ignore[arg-type]
    assert from_message(board.BoardRelease, message).state == word


@given(st.text())
def test_printable_text_has_no_control_characters_and_keeps_everything_else(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert all((ord(c) >= 32 and not 127 <= ord(c) < 160) or c in "\n\t" for c in shown)

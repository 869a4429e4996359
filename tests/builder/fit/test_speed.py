"""How fast a board should decode: from what others have published, or from what was measured there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_builder.fit.memory import Configuration, PeakMemory, load_calibration, predict_memory
from edgewright_builder.fit.model_facts import find_model
from edgewright_builder.fit.speed import (
    MEASURED_SPREAD,
    MeasuredDecode,
    Speed,
    bytes_per_token,
    predict_speed,
)
from edgewright_profiles import load_profile

ORIN = load_profile("jetson-orin-nano-8gb")
CALIBRATION = load_calibration("onnxruntime-genai")
SMALL = MeasuredDecode(bytes_per_token=10**8, tpot_seconds=0.01, joules_per_token=0.05, power_mode="15W")


def memory_of(model: str, concurrency: int = 1) -> PeakMemory:
    architecture = find_model(model).architecture
    m = Configuration(architecture.layers, 4, architecture.largest_group_size(), 8, 1024, concurrency)
    return predict_memory(architecture, m, CALIBRATION)


def speed_of(*measured: MeasuredDecode, model: str = "smollm2-135m", concurrency: int = 1) -> Speed:
    return predict_speed(memory_of(model, concurrency), concurrency, ORIN, "cpu", measured)


def test_without_a_measurement_it_is_a_share_of_the_boards_bandwidth_and_no_energy() -> None:
    speed = speed_of()
    bandwidth = ORIN.bandwidth_bytes_per_second("25W")
    assert speed.tpot_seconds_min == pytest.approx(speed.bytes_per_token_min / (0.6 * bandwidth))
    assert speed.tpot_seconds_max == pytest.approx(speed.bytes_per_token_max / (0.1 * bandwidth))
    assert (speed.joules_per_token_min, speed.joules_per_token_max, speed.measurements) == (None, None, 0)
    assert speed.rests_on == "10% to 60% of 102.4 GB/s at 25W, as published runs reach"


def test_a_full_cache_is_read_once_a_token_and_only_that_of_one_request() -> None:
    memory = memory_of("smollm2-135m", concurrency=4)
    speed = speed_of(concurrency=4)
    assert speed.bytes_per_token_max - speed.bytes_per_token_min == memory.kv_cache_bytes // 4
    assert speed.bytes_per_token_min == memory.weights_bytes  # tied: the table is the head, and read


def test_of_an_untied_embedding_the_table_is_not_read() -> None:
    memory = memory_of("smollm2-135m")
    untied = replace(memory, tied=False)
    table_bytes = sum(tensor.stored_bytes for tensor in memory.tensors if tensor.name == "embedding")
    assert bytes_per_token(memory, 0) - bytes_per_token(untied, 0) == table_bytes


def test_a_release_of_the_measured_size_is_predicted_as_it_was_measured() -> None:
    again = replace(SMALL, bytes_per_token=speed_of().bytes_per_token_max)
    speed = speed_of(again)
    assert speed.tpot_seconds_max == pytest.approx(again.tpot_seconds * (1 + MEASURED_SPREAD))
    assert speed.joules_per_token_max == pytest.approx(0.05 * (1 + MEASURED_SPREAD))
    assert speed.tpot_seconds_min < again.tpot_seconds * (1 - MEASURED_SPREAD)  # with an empty cache
    assert (speed.power_mode, speed.measurements) == ("15W", 1)
    assert speed.rests_on.startswith("100.0 tokens/s measured on this board with")


@given(
    st.floats(1e-9, 1e-6), st.floats(0, 0.05), st.sampled_from(["smollm2-135m", "llama-3.2-1b", "qwen3-8b"])
)
def test_whatever_part_of_the_time_went_into_bytes_the_range_holds_another_size(
    seconds_per_byte: float, overhead_seconds: float, model: str
) -> None:
    """A board of that truth is measured with a small release; a larger or smaller one lies in the range."""
    slowest_byte = max(seconds_per_byte, 1 / ORIN.bandwidth_bytes_per_second("15W"))
    point = replace(SMALL, tpot_seconds=overhead_seconds + slowest_byte * SMALL.bytes_per_token)
    speed = speed_of(point, model=model)
    truth = overhead_seconds + slowest_byte * speed.bytes_per_token_max
    assert speed.tpot_seconds_max >= truth * (1 + MEASURED_SPREAD) * (1 - 1e-9)
    empty = overhead_seconds + slowest_byte * speed.bytes_per_token_min
    assert speed.tpot_seconds_min <= empty * (1 - MEASURED_SPREAD) * (1 + 1e-9)
    assert speed.tpot_seconds_min > 0


def test_the_nearest_in_size_is_what_a_prediction_rests_on() -> None:
    large = replace(SMALL, bytes_per_token=10**9, tpot_seconds=0.05)
    assert "100.0 tokens/s" in speed_of(large, SMALL).rests_on
    assert "20.0 tokens/s" in speed_of(SMALL, large, model="llama-3.2-1b").rests_on


def test_what_was_measured_in_another_power_mode_than_the_latest_does_not_count() -> None:
    assert speed_of(replace(SMALL, tpot_seconds=0.5, power_mode="7W"), SMALL) == speed_of(SMALL)


def test_time_measured_without_energy_predicts_no_energy() -> None:
    speed = speed_of(replace(SMALL, joules_per_token=None, power_mode=None))
    assert (speed.joules_per_token_min, speed.joules_per_token_max) == (None, None)
    assert speed.power_mode == "25W"  # a board without power modes has the profile's

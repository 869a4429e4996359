"""When two engines may run beside each other: only where both stay within the upper end of their predictions."""

from __future__ import annotations

import pytest

from edgewright.manifest import MemoryPrediction
from edgewright_agent.deployment.engine_manager import WARM_RESERVE_BYTES, warm_swap_fits

MIB = 2**20


def predicted(peak_mib: int, error_mib: int) -> MemoryPrediction:
    return MemoryPrediction(
        budget_bytes=1,
        predicted_peak_bytes=peak_mib * MIB,
        error_bytes=error_mib * MIB,
        calibrated_on="tests",
    )


def test_the_bound_of_a_prediction_is_its_peak_and_its_error() -> None:
    assert predicted(100, 7).bound_bytes == 107 * MIB


@pytest.mark.parametrize(
    ("candidate_error_mib", "serving_error_mib", "fits"),
    [(0, 0, True), (1, 0, False), (0, 1, False)],
)
def test_a_swap_is_warm_only_if_both_upper_ends_fit_the_budget(
    candidate_error_mib: int, serving_error_mib: int, fits: bool
) -> None:
    candidate, serving = predicted(100, candidate_error_mib), predicted(80, serving_error_mib)
    assert warm_swap_fits(candidate, serving, 60 * MIB, 180 * MIB, 2**40) is fits


@pytest.mark.parametrize(("serving_error_mib", "fits"), [(0, True), (1, False)])
def test_the_serving_engine_may_still_grow_to_its_upper_end_in_the_memory_that_is_free(
    serving_error_mib: int, fits: bool
) -> None:
    available_bytes = 100 * MIB + (80 - 60) * MIB + WARM_RESERVE_BYTES
    serving = predicted(80, serving_error_mib)
    assert warm_swap_fits(predicted(100, 0), serving, 60 * MIB, 2**40, available_bytes) is fits


def test_an_engine_that_has_outgrown_its_prediction_counts_with_what_it_holds() -> None:
    assert not warm_swap_fits(predicted(100, 0), predicted(80, 0), 90 * MIB, 180 * MIB, 2**40)

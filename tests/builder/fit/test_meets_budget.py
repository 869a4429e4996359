"""A prediction meets a budget with its error bar, whoever asks: plans, adapters, the report."""

from __future__ import annotations

import pytest

from edgewright.manifest import MemoryPrediction
from edgewright_builder.fit.meets_budget import PeakBound, adapter_bound


@pytest.mark.parametrize(
    ("budget", "fits", "may_fit"), [(110, True, True), (109, False, True), (99, False, False)]
)
def test_a_model_fits_only_with_its_error_bar_within_the_budget(
    budget: int, fits: bool, may_fit: bool
) -> None:
    bound = PeakBound(peak_bytes=100, error_bytes=10, budget_bytes=budget)
    assert (bound.fits, bound.may_fit, bound.spare_bytes) == (fits, may_fit, budget - 110)


def test_an_adapter_is_held_against_the_budget_with_the_error_of_its_base() -> None:
    base = MemoryPrediction(
        budget_bytes=200, predicted_peak_bytes=100, error_bytes=10, calibrated_on="a test"
    )
    assert adapter_bound(base, adapter_bytes=5, budget_bytes=125).fits
    assert not adapter_bound(base, adapter_bytes=5, budget_bytes=124).fits

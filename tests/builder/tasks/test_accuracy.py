"""Accuracy, its error and paired differences."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_builder.tasks.accuracy import accuracy, choose, paired_difference

OUTCOMES = st.lists(st.booleans(), min_size=2, max_size=60)


@given(OUTCOMES)
def test_the_standard_error_is_the_sample_deviation_over_the_root_of_n(correct: list[bool]) -> None:
    values = [float(right) for right in correct]
    result = accuracy(correct)
    assert result.value == pytest.approx(statistics.fmean(values))
    assert result.standard_error == pytest.approx(statistics.stdev(values) / len(values) ** 0.5)
    assert result.rows == len(correct)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_a_paired_difference_is_the_difference_of_accuracies_and_antisymmetric(
    rows: list[tuple[bool, bool]],
) -> None:
    a, b = [row[0] for row in rows], [row[1] for row in rows]
    difference, error = paired_difference(a, b)
    assert difference == pytest.approx(accuracy(b).value - accuracy(a).value)
    assert paired_difference(b, a) == pytest.approx((-difference, error))


@given(OUTCOMES)
def test_a_model_does_not_differ_from_itself(correct: list[bool]) -> None:
    assert paired_difference(correct, correct) == (0.0, 0.0)


def test_outcomes_of_different_rows_are_not_paired() -> None:
    with pytest.raises(ValueError, match="2 against 1"):
        paired_difference([True, False], [True])


def test_normalisation_by_length_can_change_the_choice() -> None:
    assert choose([-4.0, -6.0]) == 0
    assert choose([-4.0, -6.0], [2, 10]) == 1

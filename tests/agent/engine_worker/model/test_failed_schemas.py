"""A schema that could not be followed is not tried again at once: trying costs the other requests their time."""

from __future__ import annotations

import pytest

from edgewright_agent.engine_worker.model.backend import InvalidRequestError
from edgewright_agent.engine_worker.model.grammar import FAILED_MAX, FAILED_SECONDS, FailedSchemas


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_a_schema_that_failed_is_refused_for_a_while_with_the_same_reason() -> None:
    clock = Clock()
    failed = FailedSchemas(clock)
    first = failed.check('{"type":"string"}')("it explodes")
    clock.seconds += FAILED_SECONDS / 2
    with pytest.raises(InvalidRequestError) as again:
        failed.check('{"type":"string"}')
    assert str(again.value) == str(first)
    failed.check('{"type":"number"}')
    clock.seconds += FAILED_SECONDS
    failed.check('{"type":"string"}')


def test_a_crowd_of_schemas_is_not_remembered_for_ever() -> None:
    failed = FailedSchemas(Clock())
    for number in range(3 * FAILED_MAX):
        failed.check(str(number))("it explodes")
    assert len(failed._failed) <= FAILED_MAX

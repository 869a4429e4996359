from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# No test fails because a machine is busy: Hypothesis would take 200 ms for an example, or slow draws, for a fault.
# CI tries the same examples each time, so that a change is judged by itself. Everywhere else they are new ones.
settings.register_profile(
    "edgewright",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("edgewright")


@pytest.fixture(scope="session", autouse=True)
def _no_calibration_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Predictions rest on what ships, whatever `edgewright calibrate` has learned on the developer's boards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWRIGHT_DATA", str(tmp_path_factory.mktemp("data")))
        yield

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# No test fails because a machine is busy: Hypothesis would take 200 ms for an example, or slow draws, for a fault.
settings.register_profile("edgewright", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgewright")


@pytest.fixture(scope="session", autouse=True)
def _no_calibration_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Predictions rest on what ships, whatever `edgewright calibrate` has learned on the developer's boards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWRIGHT_DATA", str(tmp_path_factory.mktemp("data")))
        yield

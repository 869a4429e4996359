from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _no_calibration_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Predictions rest on what ships, whatever `edgewright calibrate` has learned on the developer's boards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWRIGHT_DATA", str(tmp_path_factory.mktemp("data")))
        yield

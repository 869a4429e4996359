"""A host that calls a board again at once: the tests are of whether it calls, and not of how long it waits."""

from __future__ import annotations

from typing import Any

import pytest

from edgewright_builder.device_client import retries


@pytest.fixture
def prompt_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(failures: int, **bounds: Any) -> float:
        return 0.0

    monkeypatch.setattr(
        retries, "jittered_seconds", at_once
    )  # before a link that was never up is tried again
    monkeypatch.setattr(retries, "RETRY_SECONDS_MAX", 0)  # where a board is busy

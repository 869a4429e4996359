"""ARCHITECTURE.md describes the tree as it is."""

from __future__ import annotations

import re

import pytest

from tests.support.markdown import FENCE, ROOT

TEXT = FENCE.sub("", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
HALVES = ("agent/edgewright_agent", "builder/edgewright_builder")
PACKAGES = ("sdk/edgewright", *HALVES)
# As a room or file in the root, in one of the packages, or in the engine's worker.
BASES = [ROOT, *(ROOT / package for package in PACKAGES), ROOT / "agent/edgewright_agent/engine_worker"]
NAMED = sorted(set(re.findall(r"`([\w/-]+(?:/|\.py))`", TEXT)))


@pytest.mark.parametrize("path", NAMED)
def test_every_room_and_file_named_exists(path: str) -> None:
    assert any((base / path).exists() for base in [*BASES, ROOT / "agent/edgewright_agent/telemetry"])


@pytest.mark.parametrize("half", HALVES)
def test_every_room_of_the_halves_is_named(half: str) -> None:
    rooms = [path.name for path in (ROOT / half).iterdir() if (path / "__init__.py").is_file()]
    assert sorted(room for room in rooms if f"`{room}/`" not in TEXT) == []

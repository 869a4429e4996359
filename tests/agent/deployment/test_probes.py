"""Probes on an engine that keeps the prompts it has read, as engines do."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.deployment.probes import BoardSensors, ProbeResult, TrialConditions, run_probes
from edgewright_agent.engine_worker.model.fake import fake_tokens
from edgewright_agent.store import StagedRelease
from edgewright_agent.telemetry.types import EnergyWindow
from tests.support.artifacts import make_artifact
from tests.support.engine_releases import fake_release

PROMPT = "What does a board do while it is on probation?"  # the fake engine's tokens are its bytes
TOKENS = list(itertools.islice(fake_tokens(PROMPT.encode()), 8))
PROMPT_TOKEN_SECONDS = 0.01
READING_SECONDS = len(PROMPT) * PROMPT_TOKEN_SECONDS
ONE_WATT = BoardSensors(
    energy=lambda admitted, first, last: EnergyWindow("board", first - admitted, last - first)
)


async def probed(
    folder: Path, limits: Mapping[str, float], senses: BoardSensors = BoardSensors(), **options: Any
) -> dict[str, ProbeResult]:
    """The probes of a board that reads slowly."""
    artifact = make_artifact(
        limits={"context_tokens": 256, **limits}, golden={"prompt": PROMPT, "tokens": TOKENS}, **options
    )
    release = fake_release(folder, prompt_token_seconds=PROMPT_TOKEN_SECONDS)
    staged = StagedRelease(artifact.digest, artifact.manifest, folder)
    async with release.running() as engine:
        probes = await run_probes(engine, staged, TrialConditions(2**40, senses))
    return {probe.name: probe for probe in probes}


@pytest.mark.parametrize(("of_reading", "passes"), [(0.5, False), (4.0, True)])
async def test_a_board_that_reads_prompts_too_slowly_fails_its_limit_of_ttft(
    tmp_path: Path, of_reading: float, passes: bool
) -> None:
    probes = await probed(tmp_path, {"ttft_seconds_max": of_reading * READING_SECONDS})
    assert probes["golden_prompt"].passed
    assert probes["latency"].passed is passes, probes["latency"].detail


async def test_the_energy_probe_holds_what_reading_the_prompt_took(tmp_path: Path) -> None:
    probes = await probed(tmp_path, {}, ONE_WATT)
    reading_joules = float(probes["energy"].detail.split()[2])
    assert reading_joules >= 0.8 * READING_SECONDS


@pytest.mark.parametrize(("of_reading", "passes"), [(0.25, True), (1e-9, False)])
async def test_energy_per_token_is_that_of_decoding_and_held_against_its_prediction(
    tmp_path: Path, of_reading: float, passes: bool
) -> None:
    predicted = {"joules_per_token": of_reading * READING_SECONDS, "predicted_by": "the test"}
    probes = await probed(tmp_path, {}, ONE_WATT, performance=predicted)
    assert probes["energy"].passed is passes, probes["energy"].detail
    assert not probes["energy"].required


async def test_across_a_gap_of_the_sensor_there_is_no_energy(tmp_path: Path) -> None:
    gap = BoardSensors(energy=lambda admitted, first, last: None)
    assert "energy" not in await probed(tmp_path, {}, gap)

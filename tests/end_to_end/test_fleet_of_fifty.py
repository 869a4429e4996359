"""Fifty agents in one process, their engines scripted: updated in waves by the command line, in seconds.

`test_fleet` does the same with fifty processes and an engine process each.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgewright_agent.engines import Engine
from edgewright_agent.server import RunningAgent, run_agent
from edgewright_agent.store import StagedRelease
from tests.agent.conftest import settings_for
from tests.end_to_end.test_fleet import AGENTS, artifact
from tests.support.built_artifacts import KEY
from tests.support.scripted_engine import Script, only_fake

TIGHT = (11, 23, 37)  # boards with so little memory that a heavier release fails its probes there
TIGHT_BUDGET_BYTES, ROOMY_BUDGET_BYTES = 64 * 2**20, 2**30
HEAVY_MIB = 96


async def start_engine(release: StagedRelease) -> Engine:
    """An engine that takes the memory its release says."""
    behaviour = json.loads((release.tree / "engine/fake.json").read_text())
    return await Script(peak_bytes=behaviour["allocate_mib"] * 2**20).start(release)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Path]:
    """A fleet.yaml of running agents."""
    began, before_bytes = time.monotonic(), psutil.Process().memory_info().rss
    async with AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(board(tmp_path, number)) for number in range(AGENTS)]
        path = tmp_path / "fleet.yaml"
        path.write_text(inventory(agents))
        grown_mib = (psutil.Process().memory_info().rss - before_bytes) / 2**20
        say(f"{AGENTS} agents in {time.monotonic() - began:.1f} s and {grown_mib:.0f} MiB")
        yield path


def board(folder: Path, number: int) -> Any:
    budget_bytes = TIGHT_BUDGET_BYTES if number in TIGHT else ROOMY_BUDGET_BYTES
    keys = (KEY.public_key(),)
    settings = settings_for(folder / f"store-{number}", budget_bytes=budget_bytes, trusted_keys=keys)
    return run_agent(settings, available_engines=only_fake, start_engine=start_engine)


def inventory(agents: list[RunningAgent]) -> str:
    lines = ["name: fifty", "devices:"]
    for number, agent in enumerate(agents):
        kind = "tight" if number in TIGHT else "roomy"
        lines.append(f"  - {{host: '{agent.address}', name: board-{number}, labels: {{memory: {kind}}}}}")
    return "\n".join(lines) + "\n"


async def push(folder: Path, fleet: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """The command in a process of its own; its exit code and report."""
    command = [
        sys.executable,
        "-m",
        "edgewright_builder.cli.main",
        "push",
        str(folder),
        "--fleet",
        str(fleet),
    ]
    environment = {**os.environ, "EDGEWRIGHT_CACHE": str(fleet.parent / "cache")}
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command, "--insecure", "--json", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert process.returncode in (0, 1), errors.decode()
    report = json.loads(output)
    say(f"{len(report['devices'])} devices in {time.monotonic() - began:.1f} s")
    return process.returncode, report


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


@pytest.mark.timeout(300)
async def test_fifty_agents_are_updated_in_waves_failures_roll_back_and_the_stop_rule_stops(
    fleet: Path, tmp_path: Path
) -> None:
    code, first = await push(artifact(tmp_path, "1", 1), fleet)
    assert code == 0
    assert first["complete"]
    before = {device["device"]: device["release"] for device in first["devices"]}
    assert len(before) == AGENTS

    heavy = artifact(tmp_path, "2", 2, allocate_mib=HEAVY_MIB)
    code, second = await push(heavy, fleet, "--abort-over", "20%")  # in any order: at worst one of six
    assert code == 1
    outcomes = {device["device"]: device["outcome"] for device in second["devices"]}
    serving_now = {device["device"]: device["release"] for device in second["devices"]}
    tight = {f"board-{number}" for number in TIGHT}
    assert {name for name, outcome in outcomes.items() if outcome == "rolled back"} == tight
    assert list(outcomes.values()).count("committed") == AGENTS - len(TIGHT)
    assert second["stopped"] is None
    assert {name for name in serving_now if serving_now[name] == before[name]} == tight
    assert all(
        "peak_memory" in device["message"] for device in second["devices"] if device["device"] in tight
    )

    heavier = artifact(tmp_path, "3", 3, allocate_mib=HEAVY_MIB)
    code, third = await push(heavier, fleet, "--select", "memory=tight")
    assert code == 1
    assert [device["outcome"] for device in third["devices"]] == ["rolled back"]
    assert third["not_begun"] == [f"board-{number}" for number in TIGHT[1:]]
    assert "1 of 1 devices did not keep the release" in third["stopped"]

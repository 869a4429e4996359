"""Fifty agents on one machine, each a process of its own, updated in waves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.agent_process import AgentProcess, serving
from tests.support.built_artifacts import KEY, make_artifact

pytestmark = pytest.mark.slow

AGENTS = 50
STARTING_AT_ONCE = 4
SLOW = (11, 23, 37)  # boards on which the next release is not ready in time
READY_SECONDS_MAX = 20  # there; each of the attempts takes so long
LOADING_SECONDS = 30


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fleet.yaml of running agents."""
    folder = tmp_path_factory.mktemp("fleet")
    public_key = folder / "release.pub"
    public_key.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    boards = [board(folder, public_key, number) for number in range(AGENTS)]
    with ExitStack() as stack:
        began = time.monotonic()
        with ThreadPoolExecutor(STARTING_AT_ONCE) as pool:
            agents = list(pool.map(stack.enter_context, boards))
        say(f"{AGENTS} agents started in {time.monotonic() - began:.0f} s, {memory_of(agents)}")
        path = folder / "fleet.yaml"
        path.write_text(inventory(agents))
        yield path
        say(f"with a release each: {memory_of(agents)}")


def board(folder: Path, public_key: Path, number: int) -> AbstractContextManager[AgentProcess]:
    options = ["--insecure", "--listen", "127.0.0.1:0", "--trust", str(public_key)]
    if number in SLOW:
        options += ["--ready-timeout", str(READY_SECONDS_MAX)]
    return serving(folder / f"store-{number}", *options)


def inventory(agents: list[AgentProcess]) -> str:
    lines = ["name: fifty", "devices:"]
    for number, agent in enumerate(agents):
        disk = "slow" if number in SLOW else "fast"
        lines.append(f"  - {{host: '{agent.address}', name: board-{number}, labels: {{disk: {disk}}}}}")
    return "\n".join(lines) + "\n"


def memory_of(agents: list[AgentProcess]) -> str:
    """Proportional set size of the agents, and of the engines below them."""
    processes = [psutil.Process(agent.process.pid) for agent in agents]
    engines = [child for process in processes for child in process.children(recursive=True)]
    agents_mib, engines_mib = (
        sum(each.memory_full_info().pss for each in group) / 2**20 for group in (processes, engines)
    )
    return f"{agents_mib:.0f} MiB in {len(processes)} agents, {engines_mib:.0f} MiB in {len(engines)} engines"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def artifact(folder: Path, version: str, counter: int, **behaviour: float) -> Path:
    """A small release whose engine behaves as told; see `FakeBehaviour`."""
    told = json.dumps({"allocate_mib": 0, "salt": version, **behaviour}).encode()
    contents = {"engine/model.bin": version.encode() * 4096, "engine/fake.json": told}
    profiles = ("raspberry-pi-5-8gb",)
    made = make_artifact(
        folder / f"v{version}",
        contents,
        KEY,
        version=version,
        release_counter=counter,
        device_profiles=profiles,
    )
    return made.folder


def push(folder: Path, fleet: Path, *options: str) -> tuple[int, dict[str, Any]]:
    command = [
        sys.executable,
        "-m",
        "edgewright_builder.cli.main",
        "push",
        str(folder),
        "--fleet",
        str(fleet),
    ]
    environment = {
        **os.environ,
        "EDGEWRIGHT_CACHE": str(fleet.parent / "cache"),
    }  # a push keeps what it has sent
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--insecure", "--json", *options], capture_output=True, text=True, env=environment
    )
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    for device in report["devices"]:
        say(f"{device['device']}: {device['outcome']} after {device['seconds']:.0f} s, {device['message']}")
    say(f"{len(report['devices'])} devices in {time.monotonic() - began:.0f} s")
    return done.returncode, report


def test_fifty_agents_are_updated_in_waves_failures_roll_back_and_the_stop_rule_stops(
    fleet: Path, tmp_path: Path
) -> None:
    code, first = push(artifact(tmp_path, "1", 1), fleet)
    assert code == 0
    assert first["complete"]
    before = {device["device"]: device["release"] for device in first["devices"]}

    code, second = push(
        artifact(tmp_path, "2", 2, start_seconds=LOADING_SECONDS),
        fleet,
        "--abort-over",
        "10%",
        "--parallel",
        "25",
    )
    assert code == 1
    outcomes = {device["device"]: device["outcome"] for device in second["devices"]}
    serving_now = {device["device"]: device["release"] for device in second["devices"]}
    slow = {f"board-{number}" for number in SLOW}
    assert {name for name, outcome in outcomes.items() if outcome == "rolled back"} == slow
    assert list(outcomes.values()).count("committed") == AGENTS - len(SLOW)
    assert second["stopped"] is None
    assert {name for name in serving_now if serving_now[name] == before[name]} == slow

    code, third = push(
        artifact(tmp_path, "3", 3, start_seconds=LOADING_SECONDS), fleet, "--select", "disk=slow"
    )
    assert code == 1
    assert [device["outcome"] for device in third["devices"]] == ["rolled back"]
    assert third["not_begun"] == [f"board-{number}" for number in SLOW[1:]]
    assert "1 of 1 devices did not keep the release" in third["stopped"]

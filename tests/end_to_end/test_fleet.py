"""Fifty agents on one machine, each a process of its own, updated in waves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.agent.agent_process import serving
from tests.builder.artifacts import make_artifact

pytestmark = pytest.mark.slow

AGENTS = 50
TIGHT = (11, 23, 37)  # boards with so little memory that a heavier release fails its probation there
TIGHT_BUDGET, ROOMY_BUDGET = "64MiB", "1GiB"
HEAVY_MIB = 48
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fleet.yaml of running agents."""
    folder = tmp_path_factory.mktemp("fleet")
    public_key = folder / "release.pub"
    public_key.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    lines = ["name: fifty", "devices:"]
    with ExitStack() as stack:
        for number in range(AGENTS):
            budget = TIGHT_BUDGET if number in TIGHT else ROOMY_BUDGET
            options = [
                "--insecure",
                "--listen",
                "127.0.0.1:0",
                "--trust",
                str(public_key),
                "--budget",
                budget,
            ]
            agent = stack.enter_context(serving(folder / f"store-{number}", *options))
            kind = "tight" if number in TIGHT else "roomy"
            lines.append(f"  - {{host: '{agent.address}', name: board-{number}, labels: {{memory: {kind}}}}}")
        path = folder / "fleet.yaml"
        path.write_text("\n".join(lines) + "\n")
        yield path


def artifact(folder: Path, version: str, counter: int, allocate_mib: int = 0) -> Path:
    behaviour = json.dumps({"allocate_mib": allocate_mib, "salt": version}).encode()
    contents = {"engine/model.bin": version.encode() * 4096, "engine/fake.json": behaviour}
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
    command = [sys.executable, "-m", "edgewright_builder.cli", "push", str(folder), "--fleet", str(fleet)]
    environment = {
        **os.environ,
        "EDGEWRIGHT_CACHE": str(fleet.parent / "cache"),
    }  # a push keeps what it has sent
    done = subprocess.run(
        [*command, "--insecure", "--json", *options], capture_output=True, text=True, env=environment
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def test_fifty_agents_are_updated_in_waves_failures_roll_back_and_the_stop_rule_stops(
    fleet: Path, tmp_path: Path
) -> None:
    code, first = push(artifact(tmp_path, "1", 1), fleet)
    assert code == 0
    assert first["complete"]
    before = {device["device"]: device["release"] for device in first["devices"]}

    code, second = push(artifact(tmp_path, "2", 2, HEAVY_MIB), fleet, "--abort-over", "10%")
    assert code == 1
    outcomes = {device["device"]: device["outcome"] for device in second["devices"]}
    serving_now = {device["device"]: device["release"] for device in second["devices"]}
    tight = {f"board-{number}" for number in TIGHT}
    assert {name for name, outcome in outcomes.items() if outcome == "rolled back"} == tight
    assert list(outcomes.values()).count("committed") == AGENTS - len(TIGHT)
    assert second["stopped"] is None
    assert {name for name in serving_now if serving_now[name] == before[name]} == tight

    code, third = push(artifact(tmp_path, "3", 3, HEAVY_MIB), fleet, "--select", "memory=tight")
    assert code == 1
    assert [device["outcome"] for device in third["devices"]] == ["rolled back"]
    assert third["not_begun"] == [f"board-{number}" for number in TIGHT[1:]]
    assert "1 of 1 devices did not keep the release" in third["stopped"]

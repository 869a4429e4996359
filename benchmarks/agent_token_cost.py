"""What the agent's process spends on each token it passes on: `python benchmarks/agent_token_cost.py`.

The fake engine makes a token every --pace-ms, as a model would; a client in this process streams them, through gRPC
and through the OpenAI door in turn. Counted is the processor time of the agent's own process (the engine is another),
less what it spends idle in the same time. A slow pace matters: tokens that come in a bunch cost less each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from serving_peers import DoorPeer, GrpcPeer, Peer

from edgewright_builder.artifact import write_artifact
from edgewright_builder.device.channel import parse_address
from edgewright_builder.device.client import DeviceClient
from edgewright_builder.device.push import push
from edgewright_builder.key_files import load_signing_key
from edgewright_builder.keys import create_credentials

MIB = 1024 * 1024
FIELDS: dict[str, Any] = {
    "name": "paced", "version": "1", "device_profiles": ("this-host",), "engine": {"kind": "fake"},
    "model": {
        "architecture": "none", "parameters": 1, "layers": 1, "hidden_size": 1, "vocab_size": 1,
        "tied_embeddings": True, "weight_bits": 4, "embedding_bits": 8, "group_size": 64,
    },
    "limits": {"context_tokens": 100_000},
    "memory": {"budget_bytes": MIB, "predicted_peak_bytes": MIB, "error_bytes": 0, "calibrated_on": "nothing"},
}  # fmt: skip


@dataclass(frozen=True)
class Agent:
    """A running agent: where it answers, and its process."""

    grpc: str
    door: str
    process: psutil.Process

    @property
    def engine(self) -> psutil.Process:
        """The engine's process."""
        return self.process.children()[0]


@contextmanager
def running_agent(folder: Path) -> Iterator[Agent]:
    """An agent in a process of its own, with its OpenAI door open."""
    command = [
        sys.executable, "-m", "edgewright_agent", "serve", "--profile", "this-host", "--store", str(folder / "store"),
        "--listen", "127.0.0.1:0", "--insecure", "--openai", "127.0.0.1:0", "--probation", "0",
        "--trust", str(folder / "keys" / "release.pub"),
    ]  # fmt: skip
    environment = {**os.environ, "EDGEWRIGHT_FAKE_ENGINE": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        try:
            said = {}
            for line in child.stdout:
                what, _, where = line.strip().rpartition(" on ")
                said[what] = where
                if what == "serving":
                    break
            yield Agent(said["serving"], said["OpenAI"], psutil.Process(child.pid))
        finally:
            child.terminate()


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time so far."""
    times = process.cpu_times()
    return times.user + times.system


async def cost_microseconds(peer: Peer, agent: Agent, tokens: int, idle_share: float) -> tuple[float, float]:
    """Of the agent and of the engine, per token of one generation."""
    before, engine_before, begin = cpu_seconds(agent.process), cpu_seconds(agent.engine), time.perf_counter()
    timing = await peer.run("a prompt", tokens)
    assert timing.tokens == tokens
    seconds = time.perf_counter() - begin
    spent = cpu_seconds(agent.process) - before - idle_share * seconds
    return spent / tokens * 1e6, (cpu_seconds(agent.engine) - engine_before) / tokens * 1e6


async def idle_share(agent: Agent, seconds: float) -> float:
    """Of one core, with the engine loaded and nobody asking."""
    before = cpu_seconds(agent.process)
    await asyncio.sleep(seconds)
    return (cpu_seconds(agent.process) - before) / seconds


async def measure(options: argparse.Namespace, folder: Path) -> None:
    """All rounds."""
    behaviour = folder / "fake.json"
    behaviour.write_text(
        json.dumps({"words": 10**9, "token_seconds": options.pace_ms / 1e3}), encoding="utf-8"
    )
    create_credentials(folder / "keys")
    key = load_signing_key(folder / "keys" / "release.key")
    write_artifact(folder / "artifact", {"engine/fake.json": behaviour}, FIELDS, key)
    async with AsyncExitStack() as stack:
        agent = stack.enter_context(running_agent(folder))
        client = await stack.enter_async_context(DeviceClient(parse_address(agent.grpc), None))
        await push(client, folder / "artifact", None)
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=agent.door.removesuffix("/v1"), timeout=None)
        )
        idle = await idle_share(agent, 10)
        print(f"idle: {idle:.2%} of one core")
        peers: dict[str, Peer] = {"gRPC": GrpcPeer(client), "OpenAI": DoorPeer(http)}
        costs: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
        for _ in range(options.rounds):
            for name, peer in peers.items():
                costs[name].append(await cost_microseconds(peer, agent, options.tokens, idle))
        for name, found in costs.items():
            agents, engines = zip(*found, strict=True)
            print(
                f"{name:7} agent {statistics.median(agents):.0f} µs per token ({min(agents):.0f} to "
                f"{max(agents):.0f}), engine process {statistics.median(engines):.0f} µs"
            )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--pace-ms", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(
        f"{platform.machine()}, {psutil.cpu_count()} cores, load {load}, Python {platform.python_version()}; "
        f"{options.tokens} tokens, one every {options.pace_ms:g} ms; medians of {options.rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(options, Path(folder)))


if __name__ == "__main__":
    main()

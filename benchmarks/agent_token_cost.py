"""What the agent's process spends on each token it passes on: `python benchmarks/agent_token_cost.py`.

The fake engine makes a token every --pace-ms, as a model would; a client in this process streams them, through gRPC
and through the OpenAI API in turn. Counted is the processor time of the agent's own process (the engine is another),
less what it spends idle in the same time. A slow pace matters: tokens that come in a bunch cost less each.
In the same rounds `bare_relay.py`, which only passes bytes on, shows what of that is Python's, gRPC's and the kernel's.
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
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import psutil
from serving_agent import fake_fields, running_agent
from serving_peers import Clock, GrpcPeer, OpenAIPeer, Peer, Timing

from edgewright.v1.inference_pb2 import GenerateRequest
from edgewright.v1.inference_pb2_grpc import InferenceServiceStub
from edgewright_builder.artifact.artifact import write_artifact
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.keys.credentials import create_credentials
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.push.push import push

EVENT = b"data: " + b"x" * 220 + b"\n"  # as long as one of the engine's


@dataclass(frozen=True)
class BareGrpc:
    """`bare_relay.py` through gRPC."""

    address: str

    async def run(self, prompt: str, tokens: int) -> Timing:
        """See `Peer`."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub: Any = InferenceServiceStub(channel)
            clock = Clock()
            async for _ in stub.Generate(GenerateRequest(prompt=prompt, max_tokens=tokens)):
                clock.token()
        return clock.timing(0)


@dataclass(frozen=True)
class BareTcp:
    """`bare_relay.py` over TCP."""

    port: int

    async def run(self, prompt: str, tokens: int) -> Timing:
        """See `Peer`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"%d\n" % tokens)
        clock = Clock()
        while await reader.readline():
            clock.token()
        writer.close()
        return clock.timing(0)


@asynccontextmanager
async def bare_relay(
    folder: Path, pace_seconds: float
) -> AsyncIterator[tuple[psutil.Process, dict[str, Peer]]]:
    """The process, and ways to ask it; this process feeds it."""

    async def feed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        due = time.monotonic()
        for _ in range(int(await reader.readline())):
            due += pace_seconds
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(EVENT)
        writer.close()

    path = folder / "feed"
    async with await asyncio.start_unix_server(feed, path):
        command = [sys.executable, str(Path(__file__).with_name("bare_relay.py")), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            grpc_port, tcp_port = child.stdout.readline().split()
            peers: dict[str, Peer] = {
                "bare gRPC": BareGrpc(f"127.0.0.1:{grpc_port}"), "bare TCP": BareTcp(int(tcp_port)),
            }  # fmt: skip
            try:
                yield psutil.Process(child.pid), peers
            finally:
                child.terminate()


def cpu_seconds(process: psutil.Process) -> float:
    """Of all its threads so far, to the nanosecond (kernel: Documentation/scheduler/sched-stats.rst)."""
    tasks = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


async def cost_microseconds(peer: Peer, process: psutil.Process, tokens: int, idle_share: float) -> float:
    """Of `process`, per token of one generation."""
    before, begin = cpu_seconds(process), time.perf_counter()
    timing = await peer.run("a prompt", tokens)
    assert timing.tokens == tokens
    seconds = time.perf_counter() - begin
    return (cpu_seconds(process) - before - idle_share * seconds) / tokens * 1e6


async def idle_share(process: psutil.Process, seconds: float) -> float:
    """Of one core, with the engine loaded and nobody asking."""
    before = cpu_seconds(process)
    await asyncio.sleep(seconds)
    return (cpu_seconds(process) - before) / seconds


async def measure(options: argparse.Namespace, folder: Path) -> None:
    """All rounds."""
    async with AsyncExitStack() as stack:
        agent = stack.enter_context(running_agent(folder / "store", folder / "keys"))
        client = await stack.enter_async_context(DeviceClient(parse_address(agent.grpc), None))
        await push(client, folder / "artifact", None)
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=agent.openai_url, timeout=None))
        bare, bare_peers = await stack.enter_async_context(bare_relay(folder, options.pace_ms / 1e3))
        idle = await idle_share(agent.process, 10)
        print(f"agent, idle: {idle:.2%} of one core")
        peers: dict[str, Peer] = {"gRPC": GrpcPeer(client), "OpenAI": OpenAIPeer(http), **bare_peers}
        costs: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(options.rounds):
            for name, peer in peers.items():
                process, share = (bare, 0.0) if name in bare_peers else (agent.process, idle)
                costs[name].append(await cost_microseconds(peer, process, options.tokens, share))
    for name, found in costs.items():
        spread = f"({min(found):.0f} to {max(found):.0f})"
        print(f"{name:10} {statistics.median(found):4.0f} µs per token {spread}")


def make_artifact(folder: Path, pace_seconds: float) -> None:
    """A release of the fake engine that never ends by itself, signed."""
    behaviour = folder / "fake.json"
    behaviour.write_text(json.dumps({"words": 10**9, "token_seconds": pace_seconds}), encoding="utf-8")
    create_credentials(folder / "keys")
    key = load_signing_key(folder / "keys" / "release.key")
    write_artifact(folder / "artifact", {"engine/fake.json": behaviour}, fake_fields("paced", 100_000), key)


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
        make_artifact(Path(folder), options.pace_ms / 1e3)
        asyncio.run(measure(options, Path(folder)))


if __name__ == "__main__":
    main()

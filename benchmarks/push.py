"""How close a cold push comes to the wire: `python benchmarks/push.py [--sizes-mib 64 256 1024] [--rounds 5]`.

Alternates, over loopback, with a real agent in a process of its own and an empty store each time:
  push   ask, send, verify each chunk, fsync, publish, stage (the model's engine is not started)
  bare   a gRPC client stream of the same bytes in messages of the same size to a process that drops them: protobuf
         messages, as a generated stub sends, and `bytes`, which go as they are
  +hash, +write, +both   the stream of bytes to a process that does what a push must and nothing else: SHA-256 of each
         4 MiB, writing them past the page cache and syncing, both
  disk   a write and an fsync of the same bytes to the same disk through the page cache
each with mutual TLS, as boards are reached, and without. What was written before is synced before a clock starts.
Then, once: a second identical push, a push whose agent is killed half-way, and the agent's memory for a large file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from bare_stream import MODES, time_stream
from serving_agent import MIB, fake_fields

from edgewright.address import Address
from edgewright_builder.artifact.artifact import Artifact, open_artifact, write_artifact
from edgewright_builder.device_client.blob_parts import PART_BYTES
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.keys.credentials import create_credentials
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.push.push import PushResult, push_verified
from edgewright_builder.push.transfer import TransferListener

HERE = Path(__file__).parent
MODEL = "engine/model.bin"
NAMES = {"message": "bare", "drop": "bytes", "hash": "+hash", "write": "+write", "hash-write": "+both"}


@dataclass(frozen=True)
class Pushed:
    """One push and what it cost the agent."""

    result: PushResult
    growth_bytes: int  # peak over idle
    agent_cpu_seconds: float

    @property
    def seconds(self) -> float:
        """From the first question to the staged release."""
        return self.result.transfer_seconds


@dataclass(frozen=True)
class Bench:
    """Where things lie, and whether TLS is spoken."""

    folder: Path
    credentials: Path | None  # None: no TLS
    realtime: bool = False  # whether nothing else runs while something is timed

    def start_agent(self, store: str, listen: str = "localhost:0") -> tuple[subprocess.Popen[str], Address]:
        """An agent over this store, once it listens."""
        keys = self.folder / "credentials"
        tls = (
            ["--insecure"]
            if self.credentials is None
            else [
                f"--tls-cert={keys / 'agent.pem'}",
                f"--tls-key={keys / 'agent.key'}",
                f"--tls-ca={keys / 'ca.pem'}",
            ]
        )
        return start(
            str(Path(sys.executable).with_name("edgewright-agent")), "serve", "--profile", "this-host",
            "--store", str(self.folder / store), "--listen", listen, *tls, "--trust", str(keys / "release.pub"),
        )  # fmt: skip

    def start_sink(self) -> tuple[subprocess.Popen[str], Address]:
        """The bare server, once it listens."""
        credentials = [str(self.credentials)] if self.credentials is not None else []
        return start(sys.executable, str(HERE / "bare_stream.py"), *credentials, TMPDIR=str(self.folder))

    def artifact(self, size_bytes: int) -> Artifact:
        """Random bytes, signed."""
        folder, model = self.folder / "artifact", self.folder / "model.bin"
        with model.open("wb") as file:
            for _ in range(size_bytes // MIB):
                file.write(os.urandom(MIB))
        key = load_signing_key(self.folder / "credentials" / "release.key")
        write_artifact(folder, {MODEL: model}, fake_fields("random", 1), key)
        model.unlink()
        return open_artifact(folder)


def start(*command: str, **variables: str) -> tuple[subprocess.Popen[str], Address]:
    """A server process, once it has said where it listens."""
    environment = {**os.environ, **variables, "EDGEWRIGHT_FAKE_ENGINE": "1"}  # never started, but asked for
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    words = process.stdout.readline().split()
    assert words, f"{command[0]} ended before it served"
    return process, parse_address(words[-1])


@contextlib.contextmanager
def undisturbed(bench: Bench, *servers: int) -> Iterator[None]:
    """Real-time priority for this process and the servers while the context is open, if that is wanted."""

    def schedule(policy: int, priority: int) -> None:
        for process in (os.getpid(), *servers) if bench.realtime else ():
            for thread in psutil.Process(process).threads():
                with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                    os.sched_setscheduler(thread.id, policy, os.sched_param(priority))

    schedule(os.SCHED_FIFO, 1)
    try:
        yield
    finally:
        schedule(os.SCHED_OTHER, 0)


def stop(process: subprocess.Popen[str]) -> None:
    """Ends a server process."""
    process.terminate()
    process.wait()


async def time_push(bench: Bench, address: Address, artifact: Artifact, agent: int) -> Pushed:
    """A push over a connection that stands, as the bare stream's does."""
    process = psutil.Process(agent)
    async with DeviceClient(address, bench.credentials) as client:
        await client.get_device()
        idle_bytes, peak_bytes, before = process.memory_info().rss, 0, process.cpu_times()

        async def sample() -> None:
            nonlocal peak_bytes
            while True:
                peak_bytes = max(peak_bytes, process.memory_info().rss)
                await asyncio.sleep(0.02)

        sampling = asyncio.create_task(sample())
        with undisturbed(bench, agent):
            result = await push_verified(client, artifact, activate=False)
        sampling.cancel()
    after = process.cpu_times()
    cpu_seconds = after.user + after.system - before.user - before.system
    return Pushed(result, peak_bytes - idle_bytes, cpu_seconds)


def time_disk(source: Path, target: Path) -> float:
    """Seconds to write a file's bytes to a new file and sync it."""
    os.sync()
    begin = time.perf_counter()
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as written:
        while data := read.read(4 * MIB):
            written.write(data)
        os.fsync(written.fileno())
    seconds = time.perf_counter() - begin
    target.unlink()
    return seconds


async def one_round(
    bench: Bench, artifact: Artifact, sink: Address, sink_process: int, number: int
) -> tuple[Pushed, dict[str, float]]:
    """One push and one stream of each kind, the order alternating from round to round. Seconds by kind."""
    model = artifact.folder / MODEL
    agent, address = bench.start_agent(f"store-{number}")

    async def streams() -> dict[str, float]:
        seconds = {}
        for mode in MODES if number % 2 else reversed(MODES):
            os.sync()
            with undisturbed(bench, sink_process):
                seconds[mode] = await time_stream(sink, bench.credentials, model, PART_BYTES, mode)
        return seconds

    try:
        before = await streams() if number % 2 else None
        os.sync()
        pushed = await time_push(bench, address, artifact, agent.pid)
        assert pushed.result.sent_bytes == artifact.manifest.size_bytes
        return pushed, before or await streams()
    finally:
        stop(agent)
        subprocess.run(["rm", "-rf", str(bench.folder / f"store-{number}")], check=True)


async def compare(bench: Bench, size_bytes: int, rounds: int) -> None:
    """Runs all rounds of one size and prints the figures."""
    artifact = bench.artifact(size_bytes)
    sink_process, sink = bench.start_sink()
    pushes, streams, disks = list[Pushed](), list[dict[str, float]](), list[float]()
    try:
        for number in range(rounds):
            pushed, seconds = await one_round(bench, artifact, sink, sink_process.pid, number)
            pushes.append(pushed)
            streams.append(seconds)
            disks.append(time_disk(artifact.folder / MODEL, bench.folder / "copy.bin"))
    finally:
        stop(sink_process)
    show(bench, size_bytes, pushes, {mode: [each[mode] for each in streams] for mode in MODES}, disks)


def show(
    bench: Bench,
    size_bytes: int,
    pushes: list[Pushed],
    streams: dict[str, list[float]],
    disks: list[float],
) -> None:
    """Rates, and how many times the bare stream's the push's is, round by round."""
    seconds = [pushed.seconds for pushed in pushes]

    def share(mode: str) -> str:
        """Of that stream's rate."""
        ratios = [bare / pushed for pushed, bare in zip(seconds, streams[mode], strict=True)]
        return f"{statistics.median(ratios):.0%} ({min(ratios):.0%} to {max(ratios):.0%})"

    cpu = statistics.median(pushed.agent_cpu_seconds for pushed in pushes) / size_bytes * 1e9
    growth = max(pushed.growth_bytes for pushed in pushes) / MIB
    print(
        f"{size_bytes // MIB:5} MiB {'TLS  ' if bench.credentials else 'plain'} push {rate(size_bytes, seconds)}; "
        f"disk {rate(size_bytes, disks)}; agent {cpu:.1f} CPU s/GB, +{growth:.0f} MiB"
    )
    for mode, name in NAMES.items():
        print(f"{name:>16} {rate(size_bytes, streams[mode])}, push {share(mode)}", flush=True)


def rate(size_bytes: int, seconds: list[float]) -> str:
    """Median rate and its spread."""
    rates = [size_bytes / each / 1e6 for each in seconds]
    return f"{statistics.median(rates):.0f} MB/s ({min(rates):.0f} to {max(rates):.0f})"


async def large(bench: Bench, size_bytes: int) -> None:
    """What a large file costs the agent's memory, and what pushing it again costs the link."""
    artifact = bench.artifact(size_bytes)
    agent, address = bench.start_agent("store-large")
    try:
        first = await time_push(bench, address, artifact, agent.pid)
        second = await time_push(bench, address, artifact, agent.pid)
    finally:
        stop(agent)
    print(f"{size_bytes // MIB} MiB: agent +{first.growth_bytes / MIB:.0f} MiB at most (limit 64)")
    print(f"the same again: {second.result.sent_bytes} blob bytes sent, {second.seconds * 1e3:.0f} ms")


async def killed(bench: Bench, size_bytes: int) -> None:
    """What is sent twice when the agent is killed half-way."""
    artifact = bench.artifact(size_bytes)
    half = asyncio.Event()
    listener = TransferListener(sent=lambda sent: half.set() if sent.bytes >= size_bytes // 2 else None)
    agent, address = bench.start_agent("store-killed")
    try:
        async with DeviceClient(address, bench.credentials) as client:
            pushing = asyncio.create_task(push_verified(client, artifact, activate=False, listener=listener))
            await half.wait()
            agent.kill()
            agent.wait()
            agent, _ = bench.start_agent("store-killed", str(address))
            result = await pushing
    finally:
        stop(agent)
    again = result.sent_bytes - size_bytes
    print(f"agent killed half-way: {again / MIB:.0f} of {size_bytes // MIB} MiB sent twice (limit 64)")


async def run(folder: Path, options: argparse.Namespace) -> None:
    """All of it."""
    create_credentials(folder / "credentials")
    for size_mib in options.sizes_mib:
        for credentials in (folder / "credentials", None):
            await compare(Bench(folder, credentials, options.realtime), size_mib * MIB, options.rounds)
    secure = Bench(folder, folder / "credentials")
    await killed(secure, 512 * MIB)
    if options.large_mib:
        await large(secure, options.large_mib * MIB)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes-mib", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large-mib", type=int, default=2048, help="for the agent's memory; 0 leaves it out")
    parser.add_argument(
        "--realtime", action="store_true", help="nothing else runs meanwhile (root; each a second or two)"
    )
    parser.add_argument("--folder", type=Path, help="where to work: the disk that is measured")
    options = parser.parse_args()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(
        f"{platform.machine()}, {psutil.cpu_count()} cores, load {load}; "
        f"Python {platform.python_version()}, grpcio {grpc.__version__}; messages of {PART_BYTES // 1024} KiB; "
        f"medians of {options.rounds} rounds (smallest to largest)"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        asyncio.run(run(Path(folder), options))


if __name__ == "__main__":
    main()

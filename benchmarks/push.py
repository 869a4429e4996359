"""How close a cold push comes to the wire: `python benchmarks/push.py [--size-mib 512] [--rounds 5]`.

Alternates, over loopback without TLS, with a real agent in a process of its own and an empty store each time:
  push   find missing, send, verify each chunk and the whole, fsync, stage (the model's engine is not started)
  bare   a gRPC client stream of the same bytes in messages of the same size to a server that drops them
  disk   a write and an fsync of the same bytes to the same disk, which no push can beat
Prints medians, their ratio, and the agent's peak memory over idle during the upload.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgewright_agent.address import Address
from edgewright_builder.artifact import Artifact, open_artifact, write_artifact
from edgewright_builder.device.channel import parse_address
from edgewright_builder.device.client import DeviceClient
from edgewright_builder.device.push import PART_BYTES, push

MIB = 1024 * 1024
METHOD = "/benchmark.Sink/Write"
FIELDS: dict[str, Any] = {
    "name": "random", "version": "1", "device_profiles": ("this-host",), "engine": {"kind": "fake"},
    "model": {
        "architecture": "none", "parameters": 1, "layers": 1, "hidden_size": 1, "vocab_size": 1,
        "tied_embeddings": True, "weight_bits": 4, "embedding_bits": 8, "group_size": 64,
    },
    "limits": {"context_tokens": 1},
    "memory": {"budget_bytes": MIB, "predicted_peak_bytes": MIB, "error_bytes": 0, "calibrated_on": "nothing"},
}  # fmt: skip


async def serve_sink() -> None:
    """The bare server: counts bytes and drops them. Prints its address and serves until it is killed."""

    async def write(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return str(sum([len(data) async for data in requests])).encode()

    handler = grpc.method_handlers_generic_handler(
        "benchmark.Sink", {"Write": grpc.stream_unary_rpc_method_handler(write)}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([handler])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"serving on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def start(*command: str) -> tuple[subprocess.Popen[str], Address]:
    """A server process, once it has said where it listens."""
    environment = {**os.environ, "EDGEWRIGHT_FAKE_ENGINE": "1"}  # never started, but asked for
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    words = process.stdout.readline().split()
    assert words, f"{command[0]} ended before it served"
    return process, parse_address(words[-1])


async def time_bare(address: Address, path: Path) -> float:
    """Seconds to stream a file to the sink."""

    async def parts() -> AsyncIterator[bytes]:
        with path.open("rb") as source:
            while data := source.read(PART_BYTES):
                yield data

    async with grpc.aio.insecure_channel(str(address)) as channel:
        begin = time.perf_counter()
        method: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(METHOD)
        assert int(await method(parts())) == path.stat().st_size
        return time.perf_counter() - begin


async def time_push(address: Address, artifact: Artifact, process: psutil.Process) -> tuple[float, int]:
    """(seconds from the first question to the staged release, agent's peak memory over idle in bytes)."""
    idle_bytes, peak_bytes = process.memory_info().rss, 0

    async def sample() -> None:
        nonlocal peak_bytes
        while True:
            peak_bytes = max(peak_bytes, process.memory_info().rss)
            await asyncio.sleep(0.02)

    sampling = asyncio.create_task(sample())
    async with DeviceClient(address, None) as client:
        await client.get_snapshot()  # the connection stands, as it does for the bare stream's second message
        result = await push(client, artifact.folder, None, activate=False)
    sampling.cancel()
    assert result.sent_bytes == artifact.manifest.size_bytes
    return result.transfer_seconds, peak_bytes - idle_bytes


def time_disk(source: Path, target: Path) -> float:
    """Seconds to write a file's bytes to a new file and sync it."""
    begin = time.perf_counter()
    with source.open("rb") as read, target.open("wb") as written:
        while data := read.read(4 * MIB):
            written.write(data)
        written.flush()
        os.fsync(written.fileno())
    seconds = time.perf_counter() - begin
    target.unlink()
    return seconds


async def one_round(folder: Path, artifact: Artifact, sink: Address, number: int) -> tuple[float, float, int]:
    """One push and one bare stream, the order alternating from round to round."""
    agent, address = start(
        str(Path(sys.executable).with_name("edgewright-agent")), "serve", "--profile", "this-host",
        "--store", str(folder / f"store-{number}"), "--listen", "127.0.0.1:0", "--insecure",
        "--trust", str(folder / "release.pub"),
    )  # fmt: skip
    model = artifact.folder / "engine/model.bin"
    try:
        bare_first = await time_bare(sink, model) if number % 2 else None
        push_seconds, growth_bytes = await time_push(address, artifact, psutil.Process(agent.pid))
        bare_seconds = bare_first or await time_bare(sink, model)
    finally:
        agent.terminate()
        agent.wait()
    return push_seconds, bare_seconds, growth_bytes


async def compare(folder: Path, size_bytes: int, rounds: int) -> None:
    """Runs all rounds and prints the figures."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "release.pub").write_bytes(public)
    with (folder / "model.bin").open("wb") as model:
        for _ in range(size_bytes // MIB):
            model.write(os.urandom(MIB))
    write_artifact(folder / "artifact", {"engine/model.bin": folder / "model.bin"}, FIELDS, key)
    artifact = open_artifact(folder / "artifact")
    sink_process, sink = start(sys.executable, __file__, "--sink")
    pushes, bares, disks, growths = [], [], [], []
    try:
        for number in range(rounds):
            push_seconds, bare_seconds, growth_bytes = await one_round(folder, artifact, sink, number)
            pushes.append(size_bytes / push_seconds / 1e6)
            bares.append(size_bytes / bare_seconds / 1e6)
            disks.append(size_bytes / time_disk(folder / "model.bin", folder / "copy.bin") / 1e6)
            growths.append(growth_bytes / MIB)
            print(
                f"round {number + 1}: push {pushes[-1]:.0f} MB/s, bare {bares[-1]:.0f} MB/s, "
                f"disk {disks[-1]:.0f} MB/s, agent +{growths[-1]:.0f} MiB"
            )
    finally:
        sink_process.terminate()
        sink_process.wait()
    push_rate, bare_rate, disk_rate = (statistics.median(rates) for rates in (pushes, bares, disks))
    print(
        f"{size_bytes // MIB} MiB, medians of {rounds} rounds: "
        f"push {push_rate:.0f} MB/s, bare {bare_rate:.0f} MB/s, disk {disk_rate:.0f} MB/s"
    )
    print(
        f"push reaches {push_rate / bare_rate:.0%} of bare gRPC; agent at most {max(growths):.0f} MiB over idle"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work: the disk that is measured")
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sink:
        asyncio.run(serve_sink())
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        asyncio.run(compare(Path(folder), options.size_mib * MIB, options.rounds))


if __name__ == "__main__":
    main()

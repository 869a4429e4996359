"""llama.cpp through the agent beside a bare llama-server, and our worker on the same codes.

    python benchmarks/serving_llama.py ARTIFACT --gguf FILE [--openvino-python OPENVINO_ENVIRONMENT/bin/python]

ARTIFACT is a build for onnxruntime-genai, FILE the GGUF of its GPTQ checkpoint (`edgewright export RUN --to gguf`).
Everything is loaded once; then in each round every peer, in another order, runs the same prompts and token counts:
  bare     llama-server with the flags that the agent gives it, asked by a program that has none of our code
  gRPC     the agent's Generate, streamed over loopback
  OpenAI   the agent's OpenAI API, streamed likewise
  worker   our ONNX Runtime worker on ARTIFACT, through the engine's own client
  OpenVINO OpenVINO GenAI on FILE, in an environment that has openvino-genai
Prints medians, their spread, and ratios taken round by round: `gRPC` of `bare` is what the agent costs, and `worker` of
`bare` what the runtimes differ by.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from serving import HERE, LONG_SENTENCES, alternate, print_table
from serving_agent import fake_fields, running_agent
from serving_peers import EnginePeer, GrpcPeer, OpenAIPeer, Peer, child_peer

from edgewright_agent.engines import EngineLimits, start_engine
from edgewright_agent.engines.llama_cpp.launch import KIND, MODEL_FILE
from edgewright_agent.engines.process.cpus import default_threads
from edgewright_agent.engines.served import ServedEngine
from edgewright_builder.artifact.artifact import Artifact, open_artifact, write_artifact
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.keys.key_files import public_pem
from edgewright_builder.push.push import push

MIB = 1024 * 1024


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--openvino-python", help="of an environment that has openvino-genai")
    parser.add_argument(
        "--sentences", type=int, default=LONG_SENTENCES, help="of the prompt that prefill reads"
    )
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    asyncio.run(measure(parser.parse_args()))


async def measure(options: argparse.Namespace) -> None:
    """Starts everything, then compares."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-")))
        peers = await start_peers(options, scratch, stack)
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        print(f"{options.threads} threads, {options.rounds} rounds, {os.cpu_count()} cores, load {load}\n")
        decode, prefill = await alternate(peers, options.rounds, options.tokens, options.sentences)
        print_table("decode tokens/s", decode, lambda timing: timing.decode_rate)
        print_table("prefill tokens/s", prefill, lambda timing: timing.prefill_rate)


async def start_peers(
    options: argparse.Namespace, scratch: Path, stack: AsyncExitStack
) -> Mapping[str, Peer]:
    """Every peer, loaded."""
    ours = open_artifact(options.artifact)
    key = Ed25519PrivateKey.generate()
    packed = pack(options, scratch / "artifact", key)
    limits = EngineLimits(ours.manifest.limits.context_tokens, 1, options.threads)

    async def started(kind: str, artifact: Artifact) -> ServedEngine:
        engine = await start_engine(
            kind, artifact.folder, artifact.manifest, limits, runtime_dir=scratch, ready_timeout_seconds=300
        )
        stack.push_async_callback(engine.stop)
        assert isinstance(engine, ServedEngine)
        return engine

    server = await started(KIND, packed)
    client = [sys.executable, str(HERE / "llama_server_client.py"), str(server.socket)]
    peers: dict[str, Peer] = {
        "bare": await stack.enter_async_context(child_peer(*client, environment=os.environ))
    }
    peers |= await start_board(packed, key, options.threads, scratch, stack)
    peers["worker"] = EnginePeer(await started(ours.manifest.engine.kind, ours))
    if options.openvino_python:
        command = [
            options.openvino_python, str(HERE / "openvino_generate.py"), str(options.gguf), str(options.threads)
        ]  # fmt: skip
        peers["OpenVINO"] = await stack.enter_async_context(child_peer(*command, environment=os.environ))
    return peers


def pack(options: argparse.Namespace, folder: Path, key: Ed25519PrivateKey) -> Artifact:
    """The GGUF file as an artifact that an agent takes."""
    files = {f"engine/{MODEL_FILE}": options.gguf}
    tokenizer = options.artifact / "tokenizer"
    files |= {f"tokenizer/{path.name}": path for path in tokenizer.iterdir()}
    context_tokens = open_artifact(options.artifact).manifest.limits.context_tokens
    memory = {
        "budget_bytes": 2**31,
        "predicted_peak_bytes": 2**29,
        "error_bytes": MIB,
        "calibrated_on": "nothing",
    }
    fields: dict[str, Any] = {"engine": {"kind": KIND}, "memory": memory}
    write_artifact(folder, files, fake_fields("llama", context_tokens) | fields, key)
    return open_artifact(folder)


async def start_board(
    artifact: Artifact, key: Ed25519PrivateKey, threads: int, scratch: Path, stack: AsyncExitStack
) -> dict[str, Peer]:
    """An agent in a process of its own that serves the artifact, asked through gRPC and the OpenAI API."""
    (scratch / "release.pub").write_bytes(public_pem(key))
    agent = stack.enter_context(running_agent(scratch / "store", scratch, "--threads", str(threads)))
    client = await stack.enter_async_context(DeviceClient(parse_address(agent.grpc), None))
    await push(client, artifact.folder, None)
    http = await stack.enter_async_context(httpx.AsyncClient(base_url=agent.openai_url, timeout=None))
    return {"gRPC": GrpcPeer(client), "OpenAI": OpenAIPeer(http)}


if __name__ == "__main__":
    main()

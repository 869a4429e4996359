"""How fast a board serves, beside what it is compared with: `python benchmarks/serving.py ARTIFACT --credentials DIR`.

Everything is loaded once; then in each round every peer, in another order, runs the same prompts and token counts:
  bare       onnxruntime-genai in a loop with its own settings and as many threads, in a process of its own
  gRPC       the agent's Generate, streamed to this process over loopback
  OpenAI     the agent's OpenAI API, streamed likewise
  llama.cpp  with --llama-python INTERPRETER --gguf FILE: the same model at 4 bits, the same threads
  vLLM       with --vllm-artifact DIR and EDGEWRIGHT_VLLM: the same checkpoint on vLLM's CPU build
  fp32       with --unquantized ENGINE_FOLDER: the same model as ONNX Runtime GenAI exports it without quantization
No two long prompts share their beginning, so that none is known already. Then 1, 2, 4 and 8 clients at once over gRPC,
each with a prompt of its own again.
Prints medians, their spread, and ratios taken round by round.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
from serving_agent import running_agent
from serving_peers import ChildPeer, EnginePeer, GrpcPeer, OpenAIPeer, Peer, Timing, child_peer

from edgewright_agent.engines import EngineLimits, start_engine
from edgewright_agent.engines.process.cpus import default_threads
from edgewright_builder.artifact.artifact import open_artifact
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.push.push import push

HERE = Path(__file__).parent
SENTENCE = "The board reads its sensors once a second and writes what it finds to a file. "  # some 17 tokens
DECODE_PROMPT = 4 * SENTENCE
LONG_SENTENCES = 50
CLIENTS = (1, 2, 4, 8)
CROWDS = 5
Results = dict[str, list[Timing]]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path, help="a built artifact for onnxruntime-genai")
    parser.add_argument("--credentials", type=Path, required=True, help="folder of `edgewright keys create`")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--llama-python")
    parser.add_argument("--gguf")
    parser.add_argument("--vllm-artifact", type=Path)
    parser.add_argument("--unquantized", type=Path)
    asyncio.run(measure(parser.parse_args()))


async def measure(options: argparse.Namespace) -> None:
    """Starts everything, then compares."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-")))
        peers = await start_peers(options, scratch, stack)
        print(f"{options.threads} threads, {options.rounds} rounds, {os.cpu_count()} cores\n")
        decode, prefill = await alternate(peers, options.rounds, options.tokens)
        print_table("decode tokens/s", decode, lambda timing: timing.decode_rate)
        print_table("prefill tokens/s", prefill, lambda timing: timing.prefill_rate)
        await crowd(peers["gRPC"], options.tokens)


async def start_peers(
    options: argparse.Namespace, scratch: Path, stack: AsyncExitStack
) -> Mapping[str, Peer]:
    """Every peer that was asked for, loaded."""
    tokenizer = options.artifact / "tokenizer" / "tokenizer.json"
    folder = options.artifact / open_artifact(options.artifact).manifest.engine.folder

    async def child(*command: object) -> ChildPeer:
        return await stack.enter_async_context(child_peer(*map(str, command), environment=os.environ))

    bare = HERE / "bare_generate.py"
    peers: dict[str, Peer] = {"bare": await child(sys.executable, bare, folder, options.threads, tokenizer)}
    peers |= await start_board(options, scratch, stack)
    if options.llama_python:
        script = HERE / "llama_generate.py"
        peers["llama.cpp"] = await child(options.llama_python, script, options.gguf, options.threads)
    if options.unquantized:
        peers["fp32"] = await child(sys.executable, bare, options.unquantized, options.threads, tokenizer)
    if options.vllm_artifact:
        peers["vLLM"] = await start_vllm(options, scratch, stack)
    return peers


async def start_board(options: argparse.Namespace, scratch: Path, stack: AsyncExitStack) -> dict[str, Peer]:
    """An agent in a process of its own that serves the artifact, asked through gRPC and the OpenAI API."""
    threads = ("--threads", str(options.threads))
    agent = stack.enter_context(running_agent(scratch / "store", options.credentials, *threads))
    client = await stack.enter_async_context(DeviceClient(parse_address(agent.grpc), None))
    await push(client, options.artifact, None)
    http = await stack.enter_async_context(httpx.AsyncClient(base_url=agent.openai_url, timeout=None))
    return {"gRPC": GrpcPeer(client), "OpenAI": OpenAIPeer(http)}


async def start_vllm(options: argparse.Namespace, scratch: Path, stack: AsyncExitStack) -> EnginePeer:
    """vLLM as the agent starts it."""
    manifest = open_artifact(options.vllm_artifact).manifest
    limits = EngineLimits(manifest.limits.context_tokens, 1, options.threads)
    engine = await start_engine(
        "vllm", options.vllm_artifact, manifest, limits, runtime_dir=scratch, ready_timeout_seconds=300
    )
    stack.push_async_callback(engine.stop)
    return EnginePeer(engine)


async def alternate(
    peers: Mapping[str, Peer], rounds: int, tokens: int, sentences: int = LONG_SENTENCES
) -> tuple[Results, Results]:
    """Decode and prefill timings per peer, round by round; the first round warms up and does not count."""
    decode: Results = {name: [] for name in peers}
    prefill: Results = {name: [] for name in peers}
    names, prompts = list(peers), (f"{number} {sentences * SENTENCE}" for number in itertools.count())
    for number in range(rounds + 1):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            timings = await peers[name].run(DECODE_PROMPT, tokens), await peers[name].run(next(prompts), 1)
            if number:
                decode[name].append(timings[0])
                prefill[name].append(timings[1])
    return decode, prefill


def print_table(title: str, results: Results, figure: Callable[[Timing], float]) -> None:
    """Medians with their range, and the ratio to `bare` taken in each round."""
    print(f"| {title} | median | min to max | of bare |")
    print("|---|--:|--:|--:|")
    bare = [figure(timing) for timing in results["bare"]]
    for name, timings in results.items():
        rates = [figure(timing) for timing in timings]
        ratios = [rate / base for rate, base in zip(rates, bare, strict=True)]
        print(
            f"| {name} | {statistics.median(rates):.1f} | {min(rates):.1f} to {max(rates):.1f} "
            f"| {statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    print()


async def crowd(peer: Peer, tokens: int) -> None:
    """What 1 to 8 clients get together, and how long each waits for its first token; medians of a few times."""
    print("| clients at once | tokens/s together | TTFT median s | TTFT worst s |")
    print("|--:|--:|--:|--:|")
    prompts = (f"{number} times: {DECODE_PROMPT}" for number in itertools.count())
    times = [[await together(peer, clients, prompts, tokens) for clients in CLIENTS] for _ in range(CROWDS)]
    for clients, each in zip(CLIENTS, zip(*times, strict=True), strict=True):
        rate, middle, worst = (statistics.median(values) for values in zip(*each, strict=True))
        print(f"| {clients} | {rate:.1f} | {middle:.2f} | {worst:.2f} |")


async def together(
    peer: Peer, clients: int, prompts: Iterator[str], tokens: int
) -> tuple[float, float, float]:
    """Tokens per second of all, and the median and the longest wait for the first one."""
    begin = time.perf_counter()
    timings = await asyncio.gather(*(peer.run(next(prompts), tokens) for _ in range(clients)))
    rate = clients * tokens / (time.perf_counter() - begin)
    waits = [timing.first_seconds for timing in timings]
    return rate, statistics.median(waits), max(waits)


if __name__ == "__main__":
    main()

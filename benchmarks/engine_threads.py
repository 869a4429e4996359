"""Which threads, spinning and affinity serve best beside an agent: the worker's own application, in turn per setting.

    python benchmarks/engine_threads.py RELEASE_TREE [--rounds 5] [--tokens 96] [--clients 1] [--cores 1,2]

RELEASE_TREE holds `engine/` and `tokenizer/`. For 1 to all cores, each setting's worker is a process of its own that
answers the same requests; this process takes the tokens as the agent does, on the same cores. Settings alternate, in
reversed order every second round. Prints medians and the median of each round's ratio to the first setting.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgewright_agent.engines import GenerationRequest, Token
from edgewright_agent.engines.http.client import EngineClient
from edgewright_agent.engines.process.cpus import choose_cpus
from edgewright_agent.engines.worker_launch import LEAN_MALLOC

CONTEXT_TOKENS = 1024
PROMPT_WORDS = 128
SPIN, STOP, AFFINITY = (
    "session.intra_op.allow_spinning", "session.force_spinning_stop", "session.intra_op_thread_affinities",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One way to run the engine on some cores."""

    name: str
    threads: int
    entries: dict[str, str]


@dataclass(frozen=True)
class Speed:
    """Of one round."""

    decode: float  # tokens per second of all clients together, after everybody's first token
    prefill: float  # tokens per second of one prompt
    cpu: float  # processor seconds of the worker per 1,000 tokens generated


def settings_for(cores: Sequence[int]) -> list[Setting]:
    """The first is ONNX Runtime's default: a thread per core that spins for work."""
    count = len(cores)
    pinned = ";".join(
        str(core + 1) for core in cores[1:]
    )  # the caller's thread is not ONNX Runtime's to place
    made = [
        Setting(f"{count} spinning", count, {}),
        Setting(f"{count} stop after a run", count, {STOP: "1"}),
        Setting(f"{count} not spinning", count, {SPIN: "0"}),
    ]
    if count > 1:
        made.append(Setting(f"{count} spinning, pinned", count, {AFFINITY: pinned}))
        made.append(Setting(f"{count - 1} spinning", count - 1, {}))
    return made


def main() -> None:
    """All numbers of cores, one table each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tree", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--cores", help="numbers of cores, such as 1,2 [default: one to all]")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        socket, threads, entries = options.serve
        serve(options.tree, Path(socket), int(threads), json.loads(entries))
        return
    physical = len(choose_cpus(psutil.cpu_count() or 1))
    numbers = [int(n) for n in options.cores.split(",")] if options.cores else range(1, physical + 1)
    for number in numbers:
        cores = choose_cpus(number)
        os.sched_setaffinity(0, cores)
        settings = settings_for(cores)
        results: list[list[Speed]] = [[] for _ in settings]
        for round_number in range(options.rounds):
            order = list(range(len(settings)))
            for index in order if round_number % 2 == 0 else reversed(order):
                results[index].append(measure(options, settings[index]))
        print_table(number, options.clients, settings, results)


def serve(tree: Path, socket: Path, threads: int, entries: dict[str, str]) -> None:
    """The worker with other session settings."""
    from edgewright_agent.engine_worker import __main__ as worker
    from edgewright_agent.engine_worker.model import graph

    graph.SPINNING.clear()
    graph.SPINNING.update(entries)
    sys.argv[1:] = [
        "onnxruntime-genai", "--engine-folder", str(tree / "engine"), "--tokenizer-folder", str(tree / "tokenizer"),
        "--model", "model", "--context-tokens", str(CONTEXT_TOKENS), "--concurrency", "2",
        "--threads", str(threads), "--socket", str(socket),
    ]  # fmt: skip
    worker.main()


def measure(options: argparse.Namespace, setting: Setting) -> Speed:
    """One start of the worker: a warm-up, a prompt, and everybody's generation."""
    with running(options.tree, setting) as (process, socket):
        return asyncio.run(ask(process, socket, options.clients, options.tokens))


@contextmanager
def running(tree: Path, setting: Setting) -> Iterator[tuple[psutil.Process, Path]]:
    """The worker's process and its socket."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "http"
        command = [sys.executable, __file__, str(tree), "--serve", str(socket), str(setting.threads)]
        environment = os.environ | LEAN_MALLOC | {"ORT_DISABLE_TELEMETRY": "1"}
        with subprocess.Popen([*command, json.dumps(setting.entries)], env=environment) as started:
            try:
                while not asyncio.run(EngineClient(socket, "model").healthy()):
                    assert started.poll() is None, "the worker ended"
                    time.sleep(0.1)
                yield psutil.Process(started.pid), socket
            finally:
                started.terminate()


async def ask(process: psutil.Process, socket: Path, clients: int, tokens: int) -> Speed:
    """Speeds as a client of the worker sees them."""
    await generate(socket, "warm", 8)
    words = " ".join(f"w{n}" for n in range(PROMPT_WORDS))
    start = time.perf_counter()
    (first, *_), prompt_tokens = await generate(socket, words, 1)
    prefill = prompt_tokens / (first - start)
    before = sum(process.cpu_times()[:2])
    timed = await asyncio.gather(*(generate(socket, f"{n} is a number", tokens) for n in range(clients)))
    cpu = sum(process.cpu_times()[:2]) - before
    begin, end = max(times[0] for times, _ in timed), min(times[-1] for times, _ in timed)
    between = sum(begin < at <= end for times, _ in timed for at in times)
    return Speed(between / (end - begin), prefill, 1000 * cpu / (clients * tokens))


async def generate(socket: Path, prompt: str, tokens: int) -> tuple[list[float], int]:
    """When each token came, and the length of the prompt."""
    times, prompt_tokens = [], 0
    request = GenerationRequest(prompt=prompt, max_tokens=tokens, ignore_eos=True)
    async for item in EngineClient(socket, "model").generate(request):
        if isinstance(item, Token):
            times.append(time.perf_counter())
        else:
            prompt_tokens = item.prompt_tokens
    return times, prompt_tokens


def print_table(cores: int, clients: int, settings: list[Setting], results: list[list[Speed]]) -> None:
    """Medians, and ratios to the first setting of the same round."""
    print(f"\n{cores} cores, {clients} clients, {len(results[0])} rounds, load {os.getloadavg()[0]:.1f}\n")
    print("| threads | decode tok/s | ratio | prefill tok/s | ratio | CPU s per 1,000 tokens |")
    print("|---|---|---|---|---|---|")
    for setting, speeds in zip(settings, results, strict=True):
        middle = [
            statistics.median(values)
            for values in zip(*((s.decode, s.prefill, s.cpu) for s in speeds), strict=True)
        ]
        pairs = list(zip(speeds, results[0], strict=True))
        decode = statistics.median(speed.decode / first.decode for speed, first in pairs)
        prefill = statistics.median(speed.prefill / first.prefill for speed, first in pairs)
        print(
            f"| {setting.name} | {middle[0]:.1f} | {decode:.2f} | {middle[1]:.0f} | {prefill:.2f} | {middle[2]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

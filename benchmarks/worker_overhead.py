"""What the ONNX Runtime worker adds to a token beyond running the model.

    python benchmarks/worker_overhead.py RELEASE_TREE [--tokens 200] [--clients 1] [--rounds 3] [--threads N]

RELEASE_TREE holds `engine/` and `tokenizer/`. The worker's application runs in this process with ONNX Runtime's call
timed; the clients are a process of their own. Prints per generated token: the wall time between two calls of the model,
the processor time of the model's thread outside them, that of the HTTP thread, and the call itself. Processor times
hold on a busy machine; medians over rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import uvicorn

from edgewright_agent.engine_worker.http.app import WorkerSettings, make_app
from edgewright_agent.engine_worker.model.graph import Graph
from edgewright_agent.engine_worker.model.onnx import OnnxBackend
from edgewright_agent.engines import GenerationRequest, Token
from edgewright_agent.engines.http.client import EngineClient
from edgewright_agent.engines.process.cpus import default_threads
from edgewright_agent.engines.worker_launch import SEQUENCES_MAX

PROMPT = "The history of the city begins with"


@dataclass
class Calls:
    """Times of ONNX Runtime's calls, as the model's thread sees them."""

    gaps: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    outside_cpu: list[float] = field(default_factory=list)
    last_end: tuple[float, float] | None = None

    def timed(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run`, noted."""

        def call(binding: Any) -> None:
            begin, begin_cpu = time.perf_counter(), time.thread_time()
            if self.last_end is not None:
                self.gaps.append(begin - self.last_end[0])
                self.outside_cpu.append(begin_cpu - self.last_end[1])
            run(binding)
            self.last_end = time.perf_counter(), time.thread_time()
            self.inside.append(self.last_end[0] - begin)

        return call


def main() -> None:
    """Serves, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tree", type=Path)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--client-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client_of is not None:
        asyncio.run(clients(options.client_of, options.clients, options.tokens))
        return
    backend = OnnxBackend(options.tree / "engine", options.tree / "tokenizer", 2048, options.threads)
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "http"
        loop_thread = serve_in_thread(backend, socket)
        measured = [one_round(backend, socket, loop_thread, options) for _ in range(options.rounds)]
    names = ("gap between calls, wall", "model thread outside, CPU", "HTTP thread, CPU", "call, wall")
    print(f"{options.clients} clients, {options.threads} threads, {options.tokens} tokens each; µs per step")
    for index, name in enumerate(names):
        print(f"{name:28} {statistics.median(found[index] for found in measured) * 1e6:9.0f}")


def serve_in_thread(backend: OnnxBackend, socket: Path) -> int:
    """The worker's application with the worker's settings; the id of its event loop's thread."""
    config = uvicorn.Config(
        make_app(backend, WorkerSettings("model", SEQUENCES_MAX)), uds=str(socket), loop="asyncio",
        http="httptools", ws="none", lifespan="off",
        access_log=False, log_config=None,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    assert thread.native_id is not None
    return thread.native_id


def one_round(
    backend: OnnxBackend, socket: Path, loop_thread: int, options: argparse.Namespace
) -> tuple[float, float, float, float]:
    """Medians per call, and the HTTP thread's processor time per call."""
    graph: Graph = backend._graph
    session, calls, before = graph._session, Calls(), thread_seconds(loop_thread)
    original = session.run_with_iobinding
    session.run_with_iobinding = calls.timed(original)
    command = [sys.executable, __file__, str(options.tree), "--client-of", str(socket)]
    command += ["--clients", str(options.clients), "--tokens", str(options.tokens)]
    subprocess.run(command, check=True)
    session.run_with_iobinding = original
    http = (thread_seconds(loop_thread) - before) / len(calls.inside)
    middle = [statistics.median(times) for times in (calls.gaps, calls.outside_cpu, calls.inside)]
    return middle[0], middle[1], http, middle[2]


def thread_seconds(thread: int) -> float:
    """Processor time of one of this process's threads, to the nanosecond (schedstat)."""
    return int(Path(f"/proc/self/task/{thread}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


async def clients(socket: Path, count: int, tokens: int) -> None:
    """`count` requests at the same time."""

    async def one() -> int:
        request = GenerationRequest(prompt=PROMPT, max_tokens=tokens, ignore_eos=True)
        return sum(
            [isinstance(item, Token) async for item in EngineClient(socket, "model").generate(request)]
        )

    counts = await asyncio.gather(*(one() for _ in range(count)))
    assert counts == [tokens] * count, counts


if __name__ == "__main__":
    main()

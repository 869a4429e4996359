"""One hostile client beside six good ones: what it costs them, and whether a release or an engine is lost.

Three kinds of phases alternate, so that whatever else the machine does falls on all of them: quiet; beside the hostile
client, which is a process of its own; and beside a process that only computes as much as the hostile client did, on the
same cores. The good clients generate all the time, half of them over gRPC, each with a certificate of its own, and half
over the OpenAI API, each from an address of its own: a board knows them as six clients. Their tokens
per second beside the hostile client, over those in quiet, are what it costs them; over those beside the computing
process, they are what the board's part of it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import httpx
import psutil
from agent_token_cost import cpu_seconds
from serving_agent import Agent
from soak_attacks import ANSWER_SECONDS, HOSTILE
from soak_load import SENTENCE, Clients

from edgewright.errors import EdgewrightError
from edgewright.v1.inference_pb2 import GenerateRequest
from edgewright_agent.services.roles import CallerRole
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.keys.certificates import client_pair, load_authority

GOOD_CLIENTS = 6
PHASE_SECONDS = 20.0
TOKENS = 48
GOOD_RATIO_MIN = 0.9
GoodClient = DeviceClient | httpx.AsyncClient  # not connected yet


class Phase(Enum):
    """What runs beside the good clients."""

    QUIET = "nobody"
    HOSTILE = "a hostile client"
    COMPUTING = "a process that computes as much"


@dataclass
class Findings:
    """What was seen."""

    phase: Phase | None = None
    tokens: Counter[Phase | None] = field(default_factory=Counter)  # of the good clients
    all_tokens: Counter[Phase] = field(default_factory=Counter)  # of whoever asked, as the agent counts them
    seconds: dict[Phase, float] = field(default_factory=lambda: defaultdict(float))
    cpu_seconds: dict[tuple[Phase, str], float] = field(default_factory=lambda: defaultdict(float))
    attacks: Counter[str] = field(default_factory=Counter)  # by kind and answer
    failures: Counter[str] = field(default_factory=Counter)  # of good clients
    engines: set[int] = field(default_factory=set)  # process ids

    def cores(self, phase: Phase, name: str) -> float:
        """How many cores a process has kept busy in phases of a kind."""
        return self.cpu_seconds[phase, name] / max(1.0, self.seconds[phase])


async def hostile_soak(
    agent: Agent,
    clients: Clients,
    good: Sequence[GoodClient],
    minutes: float,
    seed: int,
    kinds: Sequence[str] = (),
) -> int:
    """Runs the phases and prints what was seen; 0 if every promise was kept. `kinds`: these attacks only."""
    findings, cycles = Findings(), max(1, round(60 * minutes / (len(Phase) * PHASE_SECONDS)))
    before = (await clients.client.get_device()).active_release
    async with hostile_process(agent, seed, kinds or HOSTILE, findings) as hostile:
        beside = [
            asyncio.create_task(work)
            for work in (
                *(be_good(client, findings) for client in good),
                watch_engines(agent, findings),
            )
        ]
        await alternate(agent, clients, hostile, cycles, findings)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    after = (await clients.client.get_device()).active_release
    return report(findings, kept_release=before == after)


def good_clients(agent: Agent, credentials: Path, scratch: Path) -> Iterator[GoodClient]:
    """Yields the good clients, as a board sees them: each on a machine of its own."""
    authority = load_authority(credentials)
    for index in range(GOOD_CLIENTS):
        if index % 2:
            transport = httpx.AsyncHTTPTransport(local_address=f"127.0.0.{10 + index}")
            yield httpx.AsyncClient(base_url=agent.openai_url, timeout=None, transport=transport)
        else:
            folder = scratch / f"client {index}"
            folder.mkdir()
            pair = client_pair(authority, CallerRole.DEPLOYER.value)
            for name, data in {**pair, "ca.pem": (credentials / "ca.pem").read_bytes()}.items():
                (folder / name).write_bytes(data)
            yield DeviceClient(parse_address(agent.grpc), folder)


async def be_good(connecting: GoodClient, findings: Findings) -> None:
    """Generates one text after the other and counts its tokens for the phase they come in."""
    async with connecting as client:
        while True:
            if isinstance(client, DeviceClient):
                generating = _grpc_tokens(client, findings)
            else:
                generating = _http_tokens(client, findings)
            try:
                await asyncio.wait_for(generating, ANSWER_SECONDS)
            except (EdgewrightError, httpx.HTTPError, ValueError, asyncio.TimeoutError) as error:
                findings.failures[f"{type(error).__name__}: {error}"[:160]] += 1
                await asyncio.sleep(0.5)


async def _grpc_tokens(client: DeviceClient, findings: Findings) -> None:
    request = GenerateRequest(prompt=SENTENCE, max_tokens=TOKENS, ignore_eos=True)
    async for event in client.generate(request):
        findings.tokens[findings.phase] += len(event.deltas)


async def _http_tokens(http: httpx.AsyncClient, findings: Findings) -> None:
    body = {"prompt": SENTENCE, "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    async with http.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != httpx.codes.OK:
            raise ValueError(f"{response.status_code}: {(await response.aread())[:120]!r}")
        async for line in response.aiter_lines():
            findings.tokens[findings.phase] += line.startswith("data: {")


@dataclass(frozen=True)
class Hostile:
    """The hostile client's process and its orders."""

    process: psutil.Process
    orders: asyncio.StreamWriter

    def obey(self, order: str) -> None:
        """Changes what it does."""
        self.orders.write(f"{order}\n".encode())


@contextlib.asynccontextmanager
async def hostile_process(
    agent: Agent, seed: int, kinds: Sequence[str], findings: Findings
) -> AsyncIterator[Hostile]:
    """Starts the hostile client, which rests at first, and notes its attacks."""
    command = [sys.executable, str(Path(__file__).with_name("soak_attacks.py")), agent.openai_url, str(seed)]
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, *kinds, stdin=pipe, stdout=pipe)
    assert child.stdin is not None
    assert child.stdout is not None

    async def note(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            findings.attacks[line.decode().strip()] += 1

    await child.stdout.readline()  # it is ready
    noting = asyncio.create_task(note(child.stdout))
    try:
        yield Hostile(psutil.Process(child.pid), child.stdin)
    finally:
        child.kill()
        await child.wait()
        await noting


async def alternate(
    agent: Agent, clients: Clients, hostile: Hostile, cycles: int, findings: Findings
) -> None:
    """Goes through the kinds of phases so many times."""
    processes = {
        "hostile client": hostile.process,
        "agent": agent.process,
        "engine": agent.process.children()[0],
        "good clients": psutil.Process(),
    }
    for _ in range(cycles):
        for phase in Phase:
            share = findings.cores(Phase.HOSTILE, "hostile client")
            orders = {Phase.HOSTILE: "attack", Phase.COMPUTING: f"compute {share:.4f}"}
            hostile.obey(orders.get(phase, "rest"))
            before, began = {name: cpu_seconds(one) for name, one in processes.items()}, time.monotonic()
            generated = await generated_tokens(clients)
            findings.phase = phase
            await asyncio.sleep(PHASE_SECONDS)
            findings.phase = None
            findings.seconds[phase] += time.monotonic() - began
            findings.all_tokens[phase] += await generated_tokens(clients) - generated
            for name, one in processes.items():
                findings.cpu_seconds[phase, name] += cpu_seconds(one) - before[name]


async def generated_tokens(clients: Clients) -> int:
    """So far, of all clients."""
    return (await clients.client.get_snapshot()).serving.generated_tokens


async def watch_engines(agent: Agent, findings: Findings) -> None:
    """Notes which engine processes there were."""
    while True:
        findings.engines |= {child.pid for child in agent.process.children()}
        await asyncio.sleep(1.0)


def report(findings: Findings, *, kept_release: bool) -> int:
    """Prints what was seen; 1 if a promise is broken."""
    for attack_and_answer, count in sorted(findings.attacks.items()):
        print(f"  {count} × {attack_and_answer}")
    for failure, count in findings.failures.most_common(12):
        print(f"  a good client failed {count} ×: {failure}")
    rates = {phase: findings.tokens[phase] / max(1, findings.seconds[phase]) for phase in Phase}
    names = ("hostile client", "agent", "engine", "good clients")
    print("| beside | tokens/s | of everybody | cores: " + " | ".join(names) + " |")
    print("|---|--:|--:" + "|--:" * len(names) + "|")
    for phase, rate in rates.items():
        cores = " | ".join(f"{findings.cores(phase, name):.3f}" for name in names)
        everybody = findings.all_tokens[phase] / max(1, findings.seconds[phase])
        print(f"| {phase.value} | {rate:.1f} | {everybody:.1f} | {cores} |")
    ratio = rates[Phase.HOSTILE] / (rates[Phase.QUIET] or 1.0)
    of_board = rates[Phase.HOSTILE] / (rates[Phase.COMPUTING] or 1.0)
    print(
        f"beside a hostile client, good ones keep {ratio:.3f} of their tokens/s (at least {GOOD_RATIO_MIN}), and "
        f"{of_board:.3f} of those beside a process that computes as much; {len(findings.engines)} engine processes; "
        f"the release is {'kept' if kept_release else 'LOST'}"
    )
    broken = ratio < GOOD_RATIO_MIN or len(findings.engines) != 1 or not kept_release or findings.failures
    return int(bool(broken))

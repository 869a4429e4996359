"""Ways to generate with the same model: bare engines in processes of their own, and a board's gRPC and OpenAI APIs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from edgewright.v1.inference_pb2 import GenerateRequest
from edgewright_agent.engines import Engine, GenerationRequest, Token
from edgewright_builder.device_client.client import DeviceClient


@dataclass(frozen=True)
class Timing:
    """One greedy generation, timed by who asked for it."""

    prompt_tokens: int
    tokens: int
    first_seconds: float  # from asking to the first token
    decode_seconds: float  # from the first to the last token

    @property
    def decode_rate(self) -> float:
        """Tokens per second after the first."""
        return (self.tokens - 1) / self.decode_seconds

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second until the first token."""
        return self.prompt_tokens / self.first_seconds


class Peer(Protocol):
    """Something that generates."""

    async def run(self, prompt: str, tokens: int) -> Timing:
        """Exactly `tokens` greedy tokens after `prompt`."""
        ...


class ChildPeer:
    """A process that reads a request per line and answers with a line of figures."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, prompt: str | list[int], tokens: int) -> Timing:
        """See `Peer`; a process without a tokenizer takes the prompt's tokens."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"prompt": prompt, "tokens": tokens}).encode() + b"\n")
        line = await self._process.stdout.readline()
        assert line, "the engine's process ended; see what it printed above"
        return Timing(**json.loads(line))


@asynccontextmanager
async def child_peer(*command: str, environment: Mapping[str, str]) -> AsyncIterator[ChildPeer]:
    """Starts the process; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environment), limit=2**20
    )
    try:
        yield ChildPeer(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass(frozen=True)
class GrpcPeer:
    """A board's gRPC."""

    client: DeviceClient

    async def run(self, prompt: str, tokens: int) -> Timing:
        """See `Peer`."""
        clock, prompt_tokens = Clock(), 0
        request = GenerateRequest(prompt=prompt, max_tokens=tokens, ignore_eos=True)
        async for event in self.client.generate(request):
            for _ in event.deltas:
                clock.token()
            if event.HasField("completion"):
                prompt_tokens = event.completion.prompt_tokens
        return clock.timing(prompt_tokens)


@dataclass(frozen=True)
class OpenAIPeer:
    """A board's OpenAI-compatible HTTP."""

    http: httpx.AsyncClient

    async def run(self, prompt: str, tokens: int) -> Timing:
        """See `Peer`."""
        clock, prompt_tokens = Clock(), 0
        body = {
            "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        async with self.http.stream("POST", "/v1/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event: dict[str, Any] = json.loads(line[6:])
                if event["choices"] and (
                    event["choices"][0]["text"] or not event["choices"][0]["finish_reason"]
                ):
                    clock.token()
                if event.get("usage"):
                    prompt_tokens = event["usage"]["prompt_tokens"]
        return clock.timing(prompt_tokens)


@dataclass(frozen=True)
class EnginePeer:
    """An engine that the agent's own code has started."""

    engine: Engine

    async def run(self, prompt: str, tokens: int) -> Timing:
        """See `Peer`."""
        clock, prompt_tokens = Clock(), 0
        request = GenerationRequest(prompt=prompt, max_tokens=tokens, ignore_eos=True)
        async for event in self.engine.generate(request):
            if isinstance(event, Token):
                clock.token()
            else:
                prompt_tokens = event.prompt_tokens
        return clock.timing(prompt_tokens)


class Clock:
    """Times tokens as they arrive."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._arrivals: list[float] = []

    def token(self) -> None:
        """One more is here."""
        self._arrivals.append(time.perf_counter())

    def timing(self, prompt_tokens: int) -> Timing:
        """What it took."""
        first, last = self._arrivals[0], self._arrivals[-1]
        return Timing(prompt_tokens, len(self._arrivals), first - self._begin, last - first)

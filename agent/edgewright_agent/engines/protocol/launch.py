"""What an engine's own module says of it: whether it can run here, how it is started, and how it is spoken to."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from edgewright_agent.engines.process.death import ANY_PROGRAM, LogWords
from edgewright_agent.engines.process.hang_detection import HEARTBEAT_SECONDS
from edgewright_agent.engines.protocol.requests import (
    ContinuationScore,
    Finish,
    GenerationRequest,
    Reply,
    ScoreItem,
    Token,
)

Format = Literal[
    "onnx", "gguf", "checkpoint", "any"
]  # what an engine's folder holds; "any": nothing that it opens


@dataclass(frozen=True)
class EngineInfo:
    """One kind of engine and whether it can run here."""

    kind: str
    version: str  # "" if not installed
    available: bool
    detail: str  # the reason if it is not available, else which interpreter runs it


@dataclass(frozen=True)
class EngineLimits:
    """What the engine may take of the board."""

    context_tokens: int  # prompt + generated, of one request
    concurrency: int = 1  # whole contexts at the same time, where the engine can batch
    threads: int | None = None  # None: one per physical core the process may run on
    # The agent ends an engine whose peak passes this; the kernel does so too where there is a cgroup.
    memory_bytes: int | None = None


class EngineHttp(Protocol):
    """An engine's HTTP in the agent's terms. Its methods raise what `Engine` says."""

    async def requests_together(self, slots: int, request_tokens: int) -> int | None:
        """Returns how many of `slots` requests share the model's steps; see `Engine`."""
        ...

    def generate(self, request: GenerationRequest, client: str = "") -> AsyncGenerator[Token | Finish, None]:
        """Yields tokens as they come, then a Finish."""
        ...

    async def score(self, items: Sequence[ScoreItem], client: str = "") -> list[list[ContinuationScore]]:
        """Returns one score per continuation."""
        ...

    async def use_adapter(self, adapter: Path | None, model: str) -> None:
        """Switches the adapter; later requests name `model`."""
        ...

    async def healthy(self) -> bool:
        """Whether the engine answers."""
        ...

    async def heartbeat(self) -> None:
        """Returns once the model has computed something after this call."""
        ...

    def relay(
        self, method: str, route: str, body: bytes, client: str = ""
    ) -> AbstractAsyncContextManager[Reply]:
        """See `Engine`."""
        ...


class EngineLog(Protocol):
    """What an engine tells of itself in its output and nowhere else."""

    @property
    def kernels(self) -> Sequence[str]:
        """The kernels named so far."""
        ...

    @property
    def slow_kernels(self) -> Sequence[str]:
        """Those of them that the engine falls back to where it has nothing better for this board."""
        ...

    def read(self, line: str) -> None:
        """Takes one line of the output."""
        ...


@dataclass(frozen=True)
class Launch:
    """How one engine is started, and how it is spoken to."""

    command: Sequence[str]
    environment: Mapping[str, str]
    http: EngineHttp
    log: EngineLog | None = None
    words: LogWords = ANY_PROGRAM  # of its log, where it says why it ends
    slots_min: int = 1  # requests to send at once, also where the plan allows fewer whole contexts
    cpus: frozenset[int] | None = None  # that the process and its children may run on; None: as the agent
    several_processes: bool = False  # which end together
    heartbeat_seconds: float = (
        HEARTBEAT_SECONDS  # after which an engine that does not answer a heartbeat hangs
    )
    traceback_signal: signal.Signals | None = None  # upon which it prints where its threads are, and goes on

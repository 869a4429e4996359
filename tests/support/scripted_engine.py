"""An engine in the test's own process that does what the test tells it to, good or bad."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewright.errors import OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines import (
    ContinuationScore,
    Death,
    DeathCause,
    Engine,
    EngineInfo,
    EngineMemory,
    Finish,
    GenerationRequest,
    Reply,
    ScoreItem,
    Token,
)
from edgewright_agent.engines.process.death import ANY_PROGRAM, shortage_line
from edgewright_agent.engines.process.kills import Among, Kills
from edgewright_agent.store import StagedRelease

TOKENS = (5, 6, 7)
NO_KILLS = Kills(0, Among.ENGINE)


class ScriptedEngine:
    """Generates `TOKENS`, `pause_seconds` apart, until it is stopped or told to die."""

    kind = "fake"
    pid = 0

    def __init__(self, release: StagedRelease, script: Script) -> None:
        self.release = release
        self.active_requests = 0
        self.adapters: list[Path | None] = []  # switched to, in order
        self.clients: list[str] = []  # that asked, in order
        self._script = script
        self._death: asyncio.Future[Death] = asyncio.get_running_loop().create_future()

    def slots(self, concurrency: int) -> int:
        return concurrency

    async def requests_together(self, concurrency: int, request_tokens: int) -> int | None:
        return concurrency

    async def generate(
        self, request: GenerationRequest, client: str = ""
    ) -> AsyncGenerator[Token | Finish, None]:
        self.active_requests += 1
        self.clients.append(client)
        try:
            await self._script.before("ask", self.release)
            count = request.max_tokens or len(TOKENS)
            for index in range(count):
                await asyncio.sleep(self._script.pause_seconds)
                if self._death.done():
                    raise OutsideError("The engine is gone.", Reason.REASON_ENGINE_FAILED)
                yield Token(f"t{index} ", self._script.tokens[index % len(TOKENS)])
            yield Finish("length", 2, count)
        finally:
            self.active_requests -= 1

    @asynccontextmanager
    async def relay(
        self, method: str, route: str, body: bytes = b"", client: str = ""
    ) -> AsyncIterator[Reply]:
        request = GenerationRequest(max_tokens=json.loads(body or b"{}").get("max_tokens", 0))
        yield Reply(200, {"content-type": "text/event-stream"}, self._events(request, client))

    async def _events(self, request: GenerationRequest, client: str) -> AsyncGenerator[bytes, None]:
        async with aclosing(self.generate(request, client)) as items:
            async for item in items:
                if isinstance(item, Token):
                    event: dict[str, Any] = {"choices": [{"index": 0, "text": item.text}]}
                else:
                    usage = {
                        "prompt_tokens": item.prompt_tokens,
                        "completion_tokens": item.generated_tokens,
                    }
                    event = {"choices": [], "usage": usage}
                yield f"data: {json.dumps(event)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    async def score(self, items: Sequence[ScoreItem], client: str = "") -> list[list[ContinuationScore]]:
        return [
            [ContinuationScore(-1.0 * len(text), len(text), False) for text in item.continuations]
            for item in items
        ]

    async def use_adapter(self, adapter: Path | None, model: str) -> None:
        await self._script.before("switch", self.release)
        if self._script.refuse_adapters:
            raise OutsideError("The engine refused the adapter.", Reason.REASON_ENGINE_FAILED)
        self.adapters.append(adapter)

    async def healthy(self) -> bool:
        return not self._death.done()

    async def heartbeat(self) -> None:
        await self._script.before("beat", self.release)

    async def stop(self) -> None:
        if not self._death.done():
            await self._script.before("stop", self.release)
        self.die(DeathCause.STOPPED)

    async def wait(self) -> Death:
        return await asyncio.shield(self._death)

    def die(self, cause: DeathCause = DeathCause.KILLED) -> None:
        """Ends now; requests under way may have caused it."""
        if not self._death.done():
            death = Death(cause, None, 9, ("last words",), requests_under_way=self.active_requests)
            self._death.set_result(death)

    def memory(self) -> EngineMemory:
        return EngineMemory(self._script.peak_bytes, self._script.peak_bytes, "pss")

    def out_of_memory_kills(self) -> Kills:
        return self._script.kills

    def last_lines(self) -> Sequence[str]:
        return self._script.lines

    def kernels(self) -> Sequence[str]:
        return self._script.kernels

    def slow_kernels(self) -> Sequence[str]:
        return self._script.slow_kernels

    def shortage_line(self) -> str | None:
        return shortage_line(self._script.lines, ANY_PROGRAM)


async def _nothing_happens(what: str, release: StagedRelease) -> None:
    """No fault."""


@dataclass
class Script:
    """How engines shall behave; `engines` are those started, in order."""

    tokens: tuple[int, ...] = TOKENS
    pause_seconds: float = 0.0
    peak_bytes: int = 1000
    lines: tuple[str, ...] = ()  # what they print
    kills: Kills = NO_KILLS  # for memory since they were started
    kernels: tuple[str, ...] = ()  # what they say they multiply with
    slow_kernels: tuple[str, ...] = ()  # those of them that are a fallback
    refuse: set[str] = field(default_factory=set)  # releases whose engine does not start
    refuse_adapters: bool = False
    engines: list[ScriptedEngine] = field(default_factory=list)
    # What happens before they `start`, `ask`, `switch` or `stop`.
    before: Callable[[str, StagedRelease], Awaitable[None]] = _nothing_happens

    async def start(self, release: StagedRelease) -> Engine:
        await asyncio.sleep(0)
        await self.before("start", release)
        if release.digest in self.refuse:
            raise OutsideError("The engine did not start.", Reason.REASON_ENGINE_FAILED)
        engine = ScriptedEngine(release, self)
        self.engines.append(engine)
        return engine

    @property
    def running(self) -> list[ScriptedEngine]:
        return [engine for engine in self.engines if not engine._death.done()]


def only_fake() -> list[EngineInfo]:
    return [EngineInfo("fake", "1", True, "in this process")]

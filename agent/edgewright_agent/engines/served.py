"""A started engine: its process and the HTTP to it, as one `Engine`."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path

from edgewright.errors import OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.process.death import Death, shortage_line
from edgewright_agent.engines.process.hang_detection import check, until_hung
from edgewright_agent.engines.process.kills import Kills
from edgewright_agent.engines.process.memory import EngineMemory
from edgewright_agent.engines.process.process import EngineProcess
from edgewright_agent.engines.protocol.launch import Launch
from edgewright_agent.engines.protocol.requests import (
    ContinuationScore,
    Finish,
    GenerationRequest,
    Reply,
    ScoreItem,
    Token,
)
from edgewright_agent.runtime.threads import within

READY_POLL_SECONDS = 0.05
DEATH_SECONDS = 1.0  # from a broken connection to the process being reaped
DYING_SECONDS = 5.0  # the same where it no longer answers: large processes take their time to end


class ServedEngine:
    """Implements `Engine` for whatever speaks OpenAI HTTP."""

    def __init__(self, kind: str, process: EngineProcess, launch: Launch, socket: Path) -> None:
        self.kind = kind
        self._process = process
        self._http = launch.http
        self._launch = launch
        self.socket = socket  # where the OpenAI-compatible HTTP answers

    @property
    def pid(self) -> int:
        """See `Engine`."""
        return self._process.pid

    def slots(self, concurrency: int) -> int:
        """See `Engine`."""
        return max(self._launch.slots_min, concurrency)

    async def requests_together(self, concurrency: int, request_tokens: int) -> int | None:
        """See `Engine`."""
        slots = self.slots(concurrency)
        return 1 if slots == 1 else await self._http.requests_together(slots, request_tokens)

    async def become_ready(self, timeout_seconds: float) -> None:
        """Returns once the engine answers. Otherwise stops it and raises OutsideError (`ENGINE_FAILED`)."""
        try:
            await within(timeout_seconds, self._poll_health(timeout_seconds))
        except asyncio.TimeoutError:
            lines = (await self._stop()).last_lines
            last_line = f" Its last words: {lines[-1]}" if lines else ""
            raise OutsideError(
                f"The engine was not ready after {timeout_seconds:g} s; allow more time or a smaller model.{last_line}",
                Reason.REASON_ENGINE_FAILED,
            ) from None
        except BaseException:
            await self._stop()
            raise

    async def _poll_health(self, timeout_seconds: float) -> None:
        """Looks at the clock too: a cancellation can get lost in what it waits for, and a board must not hang."""
        deadline_seconds = time.monotonic() + timeout_seconds
        while not await self._http.healthy():
            if time.monotonic() > deadline_seconds:
                raise asyncio.TimeoutError
            if (death := self._process.death) is not None:
                raise OutsideError(
                    f"The engine did not start: {death.sentence}. See the agent's log.",
                    Reason.REASON_ENGINE_FAILED,
                )
            await asyncio.sleep(READY_POLL_SECONDS)

    def watch(self, budget_bytes: int | None) -> None:
        """Ends the engine from now on when it hangs, passes the budget, or loses one of its processes."""
        hung = until_hung(self._http.heartbeat, self._launch.heartbeat_seconds)
        self._process.end_when_hung(hung, self._launch.traceback_signal)
        if self._launch.several_processes:
            self._process.end_with_its_processes()
        if budget_bytes is not None:
            self._process.end_when_over(budget_bytes)

    async def heartbeat(self) -> None:
        """See `Engine`."""
        seconds = self._launch.heartbeat_seconds
        try:
            await check(self._http.heartbeat, seconds)
        except asyncio.TimeoutError:
            message = f"The engine computed nothing for {seconds:g} s: it hangs. See the agent's log."
            raise OutsideError(message, Reason.REASON_ENGINE_FAILED) from None
        except OutsideError as error:
            raise await self._explained(error) from error

    async def generate(
        self, request: GenerationRequest, client: str = ""
    ) -> AsyncGenerator[Token | Finish, None]:
        """See `Engine`."""
        with self._request_under_way():
            async with aclosing(self._http.generate(request, client)) as events:
                try:
                    async for event in events:
                        yield event
                except OutsideError as error:
                    raise await self._explained(error) from error

    @asynccontextmanager
    async def relay(
        self, method: str, route: str, body: bytes = b"", client: str = ""
    ) -> AsyncIterator[Reply]:
        """See `Engine`."""
        with self._request_under_way():
            try:
                async with self._http.relay(method, route, body, client) as reply:
                    yield reply
            except OutsideError as error:
                raise await self._explained(error) from error

    async def score(self, items: Sequence[ScoreItem], client: str = "") -> list[list[ContinuationScore]]:
        """See `Engine`."""
        with self._request_under_way():
            try:
                return await self._http.score(items, client)
            except OutsideError as error:
                raise await self._explained(error) from error

    async def use_adapter(self, adapter: Path | None, model: str) -> None:
        """See `Engine`."""
        try:
            await self._http.use_adapter(adapter, model)
        except OutsideError as error:
            raise await self._explained(error) from error

    async def healthy(self) -> bool:
        """See `Engine`."""
        return self._process.death is None and await self._http.healthy()

    async def stop(self) -> None:
        """See `Engine`."""
        await self._stop()

    async def wait(self) -> Death:
        """See `Engine`."""
        return await self._process.wait()

    def memory(self) -> EngineMemory:
        """See `Engine`."""
        return self._process.memory()

    def out_of_memory_kills(self) -> Kills:
        """See `Engine`."""
        return self._process.out_of_memory_kills()

    def last_lines(self) -> Sequence[str]:
        """See `Engine`."""
        return self._process.last_lines

    def shortage_line(self) -> str | None:
        """See `Engine`."""
        return shortage_line(self._process.last_lines, self._launch.words)

    def kernels(self) -> Sequence[str]:
        """See `Engine`."""
        return () if self._launch.log is None else tuple(self._launch.log.kernels)

    def slow_kernels(self) -> Sequence[str]:
        """See `Engine`."""
        return () if self._launch.log is None else tuple(self._launch.log.slow_kernels)

    @contextmanager
    def _request_under_way(self) -> Iterator[None]:
        self._process.requests_under_way += 1
        try:
            yield
        finally:
            self._process.requests_under_way -= 1

    async def _stop(self) -> Death:
        death = await self._process.stop()
        await asyncio.to_thread(shutil.rmtree, self.socket.parent, ignore_errors=True)
        return death

    async def _explained(self, error: OutsideError) -> OutsideError:
        """Returns `error`, or the engine's death if that is what broke the connection."""
        for seconds in (DEATH_SECONDS, DYING_SECONDS):
            try:
                death = await within(seconds, self.wait())
            except asyncio.TimeoutError:
                if await self.healthy():
                    return error
            else:
                message = f"The engine died: {death.sentence}. See the agent's log."
                return OutsideError(message, Reason.REASON_ENGINE_FAILED)
        return error

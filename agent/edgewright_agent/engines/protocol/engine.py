"""A running engine: a process that holds a release and generates text.

Every engine (ONNX Runtime, vLLM, the fake one of the tests) is driven through `Engine`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from edgewright_agent.engines.process.death import Death
from edgewright_agent.engines.process.kills import Kills
from edgewright_agent.engines.process.memory import EngineMemory
from edgewright_agent.engines.protocol.requests import (
    ContinuationScore,
    Finish,
    GenerationRequest,
    Reply,
    ScoreItem,
    Token,
)


class Engine(Protocol):
    """A running engine process.

    Calls raise InputError for a wrong request (`INVALID_ARGUMENT`, `CONTEXT_EXCEEDED`), BusyError
    (`OVERLOADED`) when its queue is full, and OutsideError (`ENGINE_FAILED`) when the process is gone or
    its answer can't be understood. `client` names who asks, where the engine shares its time among clients.
    """

    @property
    def kind(self) -> str:
        """The name of its kind, as in `EngineInfo`."""
        ...

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group."""
        ...

    def slots(self, concurrency: int) -> int:
        """Returns how many requests to send it at once where the plan allows `concurrency` whole contexts."""
        ...

    async def requests_together(self, concurrency: int, request_tokens: int) -> int | None:
        """Returns how many of the requests sent at once share the model's steps; 1 if they take turns.

        Each has `request_tokens`, prompt and answer. None if the engine does not say.
        """
        ...

    def generate(self, request: GenerationRequest, client: str = "") -> AsyncGenerator[Token | Finish, None]:
        """Yields tokens as they come, then one Finish. `aclose()` cancels in the engine at once."""
        ...

    def relay(
        self, method: str, route: str, body: bytes = b"", client: str = ""
    ) -> AbstractAsyncContextManager[Reply]:
        """Gives the engine's own HTTP answer to one of OpenAI's requests; leaving the block cancels the request."""
        ...

    async def score(self, items: Sequence[ScoreItem], client: str = "") -> list[list[ContinuationScore]]:
        """Returns one score per continuation, in the order of `items`.

        The split into tokens is lm-evaluation-harness's: trailing blanks of the context belong to the
        continuation, whose tokens are those of context + continuation after the context's own.
        """
        ...

    async def use_adapter(self, adapter: Path | None, model: str) -> None:
        """Serves with this LoRA adapter, or with none, as `model`, without loading the model again.

        Generations under way end with the adapter they began with. Raises InputError if the file is no adapter
        of the model, and RefusedError (`ENGINE_UNAVAILABLE`) if this kind of engine takes none; then nothing
        has changed.
        """
        ...

    async def healthy(self) -> bool:
        """Whether the process answers. It may answer and yet no longer compute: see `heartbeat`."""
        ...

    async def heartbeat(self) -> None:
        """Returns once the model has computed something after this call, for a request or for nobody.

        Raises OutsideError (`ENGINE_FAILED`) if it does not in time. Whoever starts the engine need not ask: an engine
        that hangs is ended, and its death is HUNG.
        """
        ...

    async def stop(self) -> None:
        """Ends the process group: by SIGTERM, and by SIGKILL after a grace period. Safe to repeat."""
        ...

    async def wait(self) -> Death:
        """Returns when the process has ended; any number of callers may wait."""
        ...

    def memory(self) -> EngineMemory:
        """Returns the memory of the process tree, now and at its peak."""
        ...

    def out_of_memory_kills(self) -> Kills:
        """Returns how many processes the kernel has killed for memory since the start of this engine."""
        ...

    def last_lines(self) -> Sequence[str]:
        """Returns what the process printed last, oldest first."""
        ...

    def shortage_line(self) -> str | None:
        """Returns the last of these lines that tells of an allocation that failed; None if none does."""
        ...

    def kernels(self) -> Sequence[str]:
        """Returns the kernels it says it uses, such as "MarlinLinearKernel for GPTQMarlinLinearMethod"."""
        ...

    def slow_kernels(self) -> Sequence[str]:
        """Returns those of its kernels that are a fallback on this board."""
        ...

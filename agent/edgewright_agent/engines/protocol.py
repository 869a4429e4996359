"""What the agent knows of an engine: a process that loads a release and generates text.

Every engine (ONNX Runtime, vLLM, the fake one of the tests) is driven through `Engine`. An engine's own module says how
it is started (`Launch`), how it is spoken to (`EngineHttp`) and whether it can run here (`EngineInfo`).
"""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from edgewright_agent.engines.process.death import Death
from edgewright_agent.engines.process.kills import Kills
from edgewright_agent.engines.process.memory import EngineMemory
from edgewright_agent.engines.watch import HEARTBEAT_SECONDS

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class EngineLimits:
    """What the engine may take of the board."""

    context_tokens: int  # prompt + generated, of one request
    concurrency: int = 1  # whole contexts at the same time, where the engine can batch
    threads: int | None = None  # None: one per physical core the process may run on
    # The agent ends an engine whose peak passes this; the kernel does so too where there is a cgroup.
    memory_bytes: int | None = None


@dataclass(frozen=True)
class EngineInfo:
    """One kind of engine and whether it can run here."""

    kind: str
    version: str  # "" if not installed
    available: bool
    detail: str  # the reason if it is not available, else which interpreter runs it


@dataclass(frozen=True)
class GenerationRequest:
    """One request. Exactly one of `prompt` (taken as it is) and `messages` (put into the chat template) is given."""

    prompt: str | None = None
    messages: Sequence[Mapping[str, str]] | None = None  # each {"role": …, "content": …}
    max_tokens: int = 0  # 0: as many as the context allows
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0  # in (0, 1]
    seed: int | None = None
    stop: Sequence[str] = ()  # at most 8
    ignore_eos: bool = False  # generate until max_tokens


@dataclass(frozen=True)
class Token:
    """One generated token. Its text may be empty: a token can end inside a character or a stop string."""

    text: str
    id: int
    at_seconds: float | None = (
        None  # when it was computed, on the monotonic clock; None if the engine does not say
    )


@dataclass(frozen=True)
class Finish:
    """The last item of a generation."""

    reason: FinishReason
    prompt_tokens: int
    generated_tokens: int


@dataclass(frozen=True)
class Reply:
    """An engine's HTTP answer. The head is complete; the body is still arriving."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    pieces: AsyncGenerator[
        bytes, None
    ]  # of the body, as they arrive; raises OutsideError if the connection breaks

    async def read(self) -> bytes:
        """Returns the whole body."""
        return b"".join([piece async for piece in self.pieces])


@dataclass(frozen=True)
class ScoreItem:
    """A context and the continuations to be scored after it."""

    context: str
    continuations: Sequence[str]


@dataclass(frozen=True)
class ContinuationScore:
    """The log-likelihood of one continuation."""

    log_likelihood: float  # natural logarithm, summed over the tokens
    tokens: int
    is_greedy: bool  # every token was the most likely one


class Engine(Protocol):
    """A running engine process.

    Calls raise InputError for a wrong request (`INVALID_ARGUMENT`, `CONTEXT_EXCEEDED`), BusyError
    (`OVERLOADED`) when its queue is full, and OutsideError (`ENGINE_FAILED`) when the process is gone or
    its answer can't be understood.
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

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Token | Finish, None]:
        """Yields tokens as they come, then one Finish. `aclose()` cancels in the engine at once."""
        ...

    def relay(self, method: str, route: str, body: bytes = b"") -> AbstractAsyncContextManager[Reply]:
        """Gives the engine's own HTTP answer to one of OpenAI's requests; leaving the block cancels the request."""
        ...

    async def score(self, items: Sequence[ScoreItem]) -> list[list[ContinuationScore]]:
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

    def kernels(self) -> Sequence[str]:
        """Returns the kernels it says it uses, such as "MarlinLinearKernel for GPTQMarlinLinearMethod"."""
        ...


class EngineHttp(Protocol):
    """An engine's HTTP in the agent's terms. Its methods raise what `Engine` says."""

    async def requests_together(self, slots: int, request_tokens: int) -> int | None:
        """Returns how many of `slots` requests share the model's steps; see `Engine`."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Token | Finish, None]:
        """Yields tokens as they come, then a Finish."""
        ...

    async def score(self, items: Sequence[ScoreItem]) -> list[list[ContinuationScore]]:
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

    def relay(self, method: str, route: str, body: bytes) -> AbstractAsyncContextManager[Reply]:
        """See `Engine`."""
        ...


class EngineLog(Protocol):
    """What an engine tells of itself in its output and nowhere else."""

    @property
    def kernels(self) -> Sequence[str]:
        """The kernels named so far."""
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
    slots_min: int = 1  # requests to send at once, also where the plan allows fewer whole contexts
    cpus: frozenset[int] | None = None  # that the process and its children may run on; None: as the agent
    several_processes: bool = False  # which end together
    heartbeat_seconds: float = (
        HEARTBEAT_SECONDS  # after which an engine that does not answer a heartbeat hangs
    )
    traceback_signal: signal.Signals | None = None  # upon which it prints where its threads are, and goes on

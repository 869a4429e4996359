"""What the agent knows of an engine: a process that loads a release and generates text.

Every engine (ONNX Runtime GenAI, vLLM, the fake one of the tests) is driven through `Engine`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol

from edgewright_agent.engines.process.kills import Kills

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class EngineLimits:
    """What the engine may take of the board."""

    context_tokens: int  # prompt + generated, of one request
    concurrency: int = 1  # requests served at the same time, where the engine can batch
    threads: int | None = None  # None: one per physical core the process may run on
    # Most it may take: the agent ends it beyond, the kernel too where asked (cgroup).
    memory_bytes: int | None = None


@dataclass(frozen=True)
class EngineInfo:
    """One kind of engine and whether it can run here."""

    kind: str
    version: str  # "" if not installed
    available: bool
    detail: str  # why not, or which interpreter


@dataclass(frozen=True)
class GenerationRequest:
    """One request. Exactly one of `prompt` (taken as it is) and `messages` (put into the chat template)."""

    prompt: str | None = None
    messages: Sequence[Mapping[str, str]] | None = None  # each {"role": …, "content": …}
    max_tokens: int = 0  # 0: as many as the context allows
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0  # in (0, 1]
    seed: int | None = None
    stop: Sequence[str] = ()  # at most 8
    ignore_eos: bool = False  # go on until max_tokens


@dataclass(frozen=True)
class Token:
    """One generated token. Its text may be empty: a token can end inside a character or a stop string."""

    text: str
    id: int
    at_seconds: float | None = None  # when it was computed, on the monotonic clock, if the engine says


@dataclass(frozen=True)
class Finish:
    """The last item of a generation."""

    reason: FinishReason
    prompt_tokens: int
    generated_tokens: int


@dataclass(frozen=True)
class Reply:
    """What an engine answers: the head is here, the body comes."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    pieces: AsyncGenerator[bytes, None]  # of the body, as they arrive; raises OutsideError if it breaks off

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self.pieces])


@dataclass(frozen=True)
class ScoreItem:
    """A context and the continuations to be scored after it."""

    context: str
    continuations: Sequence[str]


@dataclass(frozen=True)
class Score:
    """Of one continuation."""

    log_likelihood: float  # natural logarithm, summed over the tokens
    tokens: int
    is_greedy: bool  # every token was the most likely one


@dataclass(frozen=True)
class EngineMemory:
    """Memory of the engine's process tree."""

    now_bytes: int
    peak_bytes: int  # since the start of the process, or since it has restarted its high-water mark
    measure: str  # how: "pss" shares pages fairly between processes, "rss" counts them in each; of now, of the peak


class DeathCause(Enum):
    """Why an engine's process ended."""

    STOPPED = "stopped"  # by `stop`
    EXITED = "exited"  # by itself, with an exit code
    KILLED = "killed"  # by a signal
    OUT_OF_MEMORY = "out of memory"  # of the process, its limit, or the board
    OVER_BUDGET = "over its memory budget"  # ended by the agent


@dataclass(frozen=True)
class Death:
    """How an engine's process ended."""

    cause: DeathCause
    exit_code: int | None  # None if a signal ended it
    signal: int | None
    last_lines: tuple[str, ...]  # of what it printed
    over_budget: str = ""  # with OVER_BUDGET: peak and budget
    lost: str = ""  # one of its processes, without which the agent ended the others
    said: str = ""  # the line that tells why, where it is not the last

    @property
    def sentence(self) -> str:
        """The death in a few words, for errors and logs."""
        if self.over_budget:
            return f"{self.cause.value}: {self.over_budget}"
        how = f"signal {self.signal}" if self.signal is not None else f"exit code {self.exit_code}"
        how = f"its process {self.lost} ended" if self.lost else how
        told = (self.said or "".join(self.last_lines[-1:])).rstrip(".")
        return f"{self.cause.value} ({how}){'; it said: ' if told else ''}{told}"


class Engine(Protocol):
    """A running engine process.

    Calls raise InputError for a wrong request (`INVALID_ARGUMENT`, `CONTEXT_EXCEEDED`), BusyError
    (`OVERLOADED`) when its queue is full, and OutsideError (`ENGINE_FAILED`) when the process is gone or
    answers nonsense.
    """

    @property
    def kind(self) -> str:
        """Of `EngineInfo.kind`."""
        ...

    @property
    def pid(self) -> int:
        """Of the process, which is also the id of its process group."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Token | Finish, None]:
        """Tokens as they come, then one Finish. `aclose()` cancels in the engine at once."""
        ...

    def relay(self, method: str, route: str, body: bytes = b"") -> AbstractAsyncContextManager[Reply]:
        """The engine's own HTTP answer to one of OpenAI's requests; leaving the block cancels in the engine."""
        ...

    async def score(self, items: Sequence[ScoreItem]) -> list[list[Score]]:
        """One Score per continuation, in the order of `items`.

        The split into tokens is lm-evaluation-harness's: trailing blanks of the context belong to the
        continuation, whose tokens are those of context + continuation after the context's own.
        """
        ...

    async def use_adapter(self, adapter: Path | None, model: str) -> None:
        """Serve with this LoRA adapter, or with none, as `model`, without loading the model again.

        Generations under way end with the adapter they began with. Raises InputError if the file is no adapter
        of the model, and RefusedError (`ENGINE_UNAVAILABLE`) if this kind of engine takes none; then nothing
        has changed.
        """
        ...

    async def healthy(self) -> bool:
        """Whether the process answers."""
        ...

    async def stop(self) -> None:
        """End the process group: asked first, killed after a grace period. Safe to repeat."""
        ...

    async def wait(self) -> Death:
        """Return when the process has ended; any number of callers may wait."""
        ...

    def memory_bytes(self) -> EngineMemory:
        """Memory of the process tree, now and at its peak."""
        ...

    def out_of_memory_kills(self) -> Kills:
        """How many processes the kernel has killed for memory since this engine was started, and among which."""
        ...

    def last_lines(self) -> Sequence[str]:
        """What the process printed last, oldest first."""
        ...

    def kernels(self) -> Sequence[str]:
        """What it says it multiplies with, e.g. "MarlinLinearKernel for GPTQMarlinLinearMethod"; empty if nothing."""
        ...

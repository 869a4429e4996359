"""The engine that will serve on the board, run on the host: what ships is what is measured."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path

from edgewright.errors import OutsideError
from edgewright.manifest import Manifest
from edgewright_agent.engines import (
    Engine,
    EngineLimits,
    GenerationRequest,
    ScoreItem,
    Token,
    available_engines,
    start_engine,
)
from edgewright_builder.local_engine.float32 import has_int8_products, write_float32_tree
from edgewright_builder.local_engine.golden_prompt import Greedy

READY_TIMEOUT_SECONDS = 900.0  # vLLM's three processes on a busy host


def engine_version(kind: str) -> str:
    """Returns the version of what runs models of that kind here, as a board would tell it; empty if nothing does."""
    return next((engine.version for engine in available_engines() if engine.kind == kind), "")


@dataclass(frozen=True)
class LocalEngine:
    """A running engine for callers without an event loop. A `tasks.scoring.Scorer`."""

    engine: Engine
    loop: asyncio.AbstractEventLoop

    def score(self, items: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """log p(continuation | context), natural, summed over tokens, per item and continuation."""
        work = self.engine.score([ScoreItem(context, continuations) for context, continuations in items])
        scores = asyncio.run_coroutine_threadsafe(work, self.loop).result()
        return [[score.log_likelihood for score in item] for item in scores]

    def greedy(self, prompt: str, max_tokens: int) -> Greedy:
        """Returns a greedy completion of `prompt`."""
        return asyncio.run_coroutine_threadsafe(self._greedy(prompt, max_tokens), self.loop).result()

    async def _greedy(self, prompt: str, max_tokens: int) -> Greedy:
        body = {
            "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": 2, "return_token_ids": True,
        }  # fmt: skip
        async with self.engine.relay("POST", "/v1/completions", json.dumps(body).encode()) as reply:
            answer = await reply.read()
        if reply.status != HTTPStatus.OK:
            words = answer.decode(errors="replace")[:200]
            raise OutsideError(
                f"The engine completed no prompt, which it should. Run it again. Its answer: {words}"
            )
        (choice,) = json.loads(answer)["choices"]
        alternatives = (choice["logprobs"] or {}).get("top_logprobs") or []
        tokens = choice.get("token_ids")
        if tokens is None:  # an engine that names no tokens in OpenAI's answers
            tokens = await self._greedy_tokens(prompt, max_tokens)
        leads = [_lead(each) for each in alternatives[: len(tokens)]]
        missing = [0.0] * (len(tokens) - len(leads))  # of the token that ended the text
        return Greedy(tuple(tokens), (*leads, *missing))

    async def _greedy_tokens(self, prompt: str, max_tokens: int) -> list[int]:
        request = GenerationRequest(prompt=prompt, max_tokens=max_tokens, temperature=0.0, exact=True)
        return [event.id async for event in self.engine.generate(request) if isinstance(event, Token)]


@contextmanager
def local_engine(
    tree: Path, manifest: Manifest, *, adapter: Path | None = None, memory_limit_bytes: int | None = None
) -> Iterator[LocalEngine]:
    """Starts the manifest's engine on the files in `tree`, and stops it at the end of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    limits = EngineLimits(
        manifest.limits.context_tokens, manifest.limits.concurrency, memory_bytes=memory_limit_bytes
    )
    try:
        with tempfile.TemporaryDirectory(prefix="edgewright-") as runtime:
            start = start_engine(
                manifest.engine.kind, tree, manifest, limits,
                runtime_dir=Path(runtime), ready_timeout_seconds=READY_TIMEOUT_SECONDS, adapter=adapter,
            )  # fmt: skip
            engine = asyncio.run_coroutine_threadsafe(start, loop).result()
            try:
                yield LocalEngine(engine, loop)
            finally:
                asyncio.run_coroutine_threadsafe(engine.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def open_arithmetics(
    tree: Path, manifest: Manifest, scratch: Path, *, adapter: Path | None = None
) -> tuple[Callable[[], AbstractContextManager[LocalEngine]], ...]:
    """Returns what opens the engine in each arithmetic that its boards may compute in: as built, and in float32.

    A copy of the graph goes to `scratch` for as long as the second one is open.
    """
    as_built = partial(local_engine, tree, manifest, adapter=adapter)
    if not has_int8_products(tree):
        return (as_built,)
    return (as_built, partial(_float32_engine, tree, manifest, scratch, adapter))


@contextmanager
def _float32_engine(
    tree: Path, manifest: Manifest, scratch: Path, adapter: Path | None
) -> Iterator[LocalEngine]:
    with (
        tempfile.TemporaryDirectory(prefix="float32-", dir=scratch) as folder,
        local_engine(write_float32_tree(tree, Path(folder)), manifest, adapter=adapter) as engine,
    ):
        yield engine


def _lead(alternatives: Mapping[str, float]) -> float:
    """Returns the most likely token's lead over the next one, in nats; 0 where two of the same spelling hide it."""
    best = sorted(alternatives.values(), reverse=True)
    return best[0] - best[1] if len(best) > 1 else 0.0

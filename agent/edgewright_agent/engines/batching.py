"""How many requests an engine is given at once, and how many of them it computes together."""

from __future__ import annotations

import json

from edgewright_agent.engines import onnx
from edgewright_agent.engines.protocol import Engine

# Short requests share the KV cache of the contexts that the plan allows; the worker's own `ROWS_MAX`.
SHARING_MAX = 8


def slots(engine: Engine, concurrency: int) -> int:
    """Requests to give it at once where the plan allows `concurrency` whole contexts.

    Our worker divides that KV cache among as many as fit, and lets the others wait in order. vLLM is told a batch.
    """
    return max(concurrency, SHARING_MAX) if engine.kind == onnx.KIND else concurrency


async def together(engine: Engine, concurrency: int, request_tokens: int) -> int | None:
    """How many requests of that length, prompt and answer, share the model's steps; None if the engine does not say.

    1: they take turns. vLLM is told how many; our worker says how many its KV cache has room for.
    """
    most = slots(engine, concurrency)
    if most == 1 or engine.kind == "vllm":
        return most
    async with engine.relay("GET", f"/v1/together/{request_tokens}") as reply:
        body = await reply.read()
    try:
        said = json.loads(body)["requests"]
    except (ValueError, KeyError, TypeError):
        return None
    return min(most, said) if isinstance(said, int) else None

"""How many requests an engine is given at once, and whether it computes them together."""

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


async def batches(engine: Engine, concurrency: int) -> bool | None:
    """True if they share the model's steps, False if they take turns, None if the engine does not say.

    With one slot they take turns before the engine. vLLM batches always; the other engines say it in `/health`.
    """
    if slots(engine, concurrency) == 1:
        return False
    if engine.kind == "vllm":
        return True
    async with engine.relay("GET", "/health") as reply:
        body = await reply.read()
    try:
        said = json.loads(body).get("batching")
    except (ValueError, AttributeError):
        return None
    return said if isinstance(said, bool) else None

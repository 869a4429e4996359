"""Whether requests that come together are computed together."""

from __future__ import annotations

import json

from edgewright_agent.engines.protocol import Engine


async def batches(engine: Engine, slots: int) -> bool | None:
    """True if they share the model's steps, False if they take turns, None if the engine does not say.

    With one slot they take turns before the engine. vLLM batches always; the other engines say it in `/health`.
    """
    if slots == 1:
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

"""Notices an engine that runs and no longer computes: liveness is an answer, not a process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edgewright.errors import EdgewrightError
from edgewright_agent.runtime.threads import within

HEARTBEAT_SPACING_SECONDS = 20.0  # between two heartbeats; each lets an idle model read two tokens
# The longest that one turn of the model may take: a slice of a prompt and a step, of a large model on a slow board.
HEARTBEAT_SECONDS = 60.0


async def check(heartbeat: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Returns once the engine has computed something. Raises asyncio.TimeoutError if it says nothing for `seconds`."""
    await within(seconds, heartbeat())


async def until_hung(heartbeat: Callable[[], Awaitable[None]], seconds: float) -> str:
    """Returns why the engine is taken for hung, once it has not computed for `seconds`; runs until then.

    An engine that answers with an error computes: its requests are told what is wrong. One that is gone answers
    nothing, and its death is noticed elsewhere.
    """
    while True:
        await asyncio.sleep(HEARTBEAT_SPACING_SECONDS)
        try:
            await check(heartbeat, seconds)
        except EdgewrightError:
            continue
        except asyncio.TimeoutError:
            return f"it computed nothing for {seconds:g} s, asked for a sign of life"

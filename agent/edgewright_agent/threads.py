"""Work that goes on when who waits for it is cancelled: in a thread, or of several steps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


async def run_in_thread(
    function: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs
) -> _Result:
    """`asyncio.to_thread` that ends no earlier than its thread, also when it is cancelled.

    A thread can't be stopped; what comes next must not overtake it on the same file.
    """
    return await to_the_end(asyncio.to_thread(function, *args, **kwargs))


async def to_the_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Waits for all of `work`, also when cancelled: a caller who leaves must not leave a change half-made."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: who is cancelled does not hear it
        raise

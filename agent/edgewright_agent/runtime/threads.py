"""Ways to wait that a cancellation neither cuts short nor slips through: in a thread, to the end, within a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


async def run_in_thread(
    function: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs
) -> _Result:
    """Runs as `asyncio.to_thread`, and ends no earlier than its thread, also when it is cancelled.

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


async def within(
    seconds: float, work: Awaitable[_Result], undo: Callable[[_Result], object] | None = None
) -> _Result:
    """Returns the result of `work`; raises asyncio.TimeoutError if it takes longer. Then it is cancelled and has
    ended.

    Before Python 3.12, `asyncio.wait_for` loses a cancellation that comes just as its work ends. Here the
    cancellation counts, and `undo` gets the result that nobody takes: a slot, a connection.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=seconds)
    except asyncio.CancelledError:
        await _drop(task, undo)
        raise
    if not task.done():
        await _drop(task, undo)
        raise asyncio.TimeoutError
    return task.result()


async def _drop(task: asyncio.Future[_Result], undo: Callable[[_Result], object] | None) -> None:
    """Cancels it and waits for its end. A cancellation that comes meanwhile is raised then."""
    cancelled = None
    task.cancel()
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if not task.cancelled() and task.exception() is None and undo is not None:
        undo(task.result())
    if cancelled is not None:
        raise cancelled

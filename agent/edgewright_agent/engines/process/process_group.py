"""Engines of several processes: when one of them ends, the others are of no use."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping

import psutil


def descendants(pid: int) -> dict[int, str]:
    """Returns the name of each process below `pid`; none if it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return {child.pid: _name(child) for child in psutil.Process(pid).children(recursive=True)}
    return {}


async def first_to_end(processes: Mapping[int, str]) -> str:
    """Runs until the first of these ends; returns its name at once. They need not be our children.

    A pidfd is readable once its process has ended (pidfd_open(2), Linux 5.3).
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str] = loop.create_future()
    with contextlib.ExitStack() as stack:
        for pid, name in processes.items():
            try:
                file = os.pidfd_open(pid)
            except ProcessLookupError:
                return name
            stack.callback(os.close, file)
            loop.add_reader(file, _resolve, ended, name)
            stack.callback(loop.remove_reader, file)
        return await ended


def has_ended(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _resolve(ended: asyncio.Future[str], name: str) -> None:
    if not ended.done():
        ended.set_result(name)


def _name(process: psutil.Process) -> str:
    """Returns the name that the process gives itself; vLLM's say what they are."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name()
    return str(process.pid)

"""Tells systemd that the agent is ready, is stopping, and that its event loop still turns. See sd_notify(3)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator

_log = logging.getLogger(__name__)
_outage = threading.Event()  # the last message did not arrive, and the log says so


def notify(state: str) -> None:
    """Sends one datagram to systemd; does nothing where systemd did not start us.

    Its socket may be gone for good (a variable left over from elsewhere) or for a while (systemd starts anew). The
    agent serves all the same.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.sendto(state.encode(), address.replace("@", "\0", 1))
    except OSError as error:
        if not _outage.is_set():
            _log.warning("systemd can't be told %s at %s: %s", state, address, error.strerror or error)
        _outage.set()
    else:
        _outage.clear()


def watchdog_seconds() -> float | None:
    """Returns how long systemd waits for a sign of life from this process; None if it does not."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()) or not microseconds.isdecimal():
        return None
    return int(microseconds) / 1e6 or None


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[None]:
    """Feeds the watchdog from this event loop while the context is open. systemd restarts an agent whose loop hangs."""
    seconds = watchdog_seconds()
    if seconds is None:
        yield
        return
    task = asyncio.create_task(_feed(seconds / 3))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _feed(interval_seconds: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_seconds)

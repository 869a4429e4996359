"""Runs the store's scrub in an idle thread, and has the deployer act on what it finds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator

import psutil

from edgewright.errors import EdgewrightError
from edgewright_agent.deployment.deployer import Deployer
from edgewright_agent.store import Store
from edgewright_agent.store.background_scrub import BackgroundScrub, BackgroundScrubSettings
from edgewright_agent.telemetry.sampling.monitor import Telemetry

_LOWEST = 19

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def scrub_thread(
    settings: BackgroundScrubSettings, store: Store, deployer: Deployer, telemetry: Telemetry
) -> AsyncIterator[None]:
    """Scrubs until the context ends. A release that is found damaged stops serving at once."""
    if not settings.interval_seconds:
        yield
        return
    loop, stop = asyncio.get_running_loop(), threading.Event()
    told: set[asyncio.Task[None]] = set()

    def begin(damaged: frozenset[str]) -> None:
        task = loop.create_task(_give_way(deployer, damaged))
        told.add(task)
        task.add_done_callback(told.discard)

    def found(damaged: frozenset[str]) -> None:
        loop.call_soon_threadsafe(begin, damaged)

    scrub = BackgroundScrub(
        store, settings, is_busy=lambda: _is_busy(store, deployer, telemetry), found=found
    )
    thread = threading.Thread(target=_run_idle, args=(scrub, stop), name="scrub", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)
        for task in list(told):
            task.cancel()
        await asyncio.gather(*told, return_exceptions=True)


def _is_busy(store: Store, deployer: Deployer, telemetry: Telemetry) -> bool:
    return store.is_busy or not deployer.state.at_rest or telemetry.requests_in_flight > 0


def _run_idle(scrub: BackgroundScrub, stop: threading.Event) -> None:
    """Runs the scrub with the lowest priority for the processor and for the disk."""
    thread = threading.get_native_id()
    with contextlib.suppress(
        OSError, psutil.Error
    ):  # a kernel that does not let it: the pace is slow all the same
        os.setpriority(os.PRIO_PROCESS, thread, _LOWEST)
        psutil.Process(thread).ionice(psutil.IOPRIO_CLASS_IDLE)
    scrub.run(stop)


async def _give_way(deployer: Deployer, damaged: frozenset[str]) -> None:
    try:
        await deployer.found_damaged(damaged)
    except EdgewrightError as error:
        _log.error("the damaged release goes on serving: %s", error)

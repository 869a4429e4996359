"""The top command: one board, live, until Ctrl-C."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.live import Live

from edgewright_builder.cli.connection import connect, console, run
from edgewright_builder.cli.options import Credentials, Host, Insecure
from edgewright_builder.device.client import DeviceClient
from edgewright_builder.device.failures import LinkError
from edgewright_builder.show.top import History, render

DEVICE_SECONDS = 2.0  # the phase and the releases change seldom
RETRY_SECONDS = 1.0


def top(
    host: Host,
    credentials: Credentials = None,
    insecure: Insecure = False,
    interval: Annotated[float, typer.Option(min=0.1, max=60.0, help="Seconds between screens.")] = 0.5,
    screens: Annotated[
        int | None,
        typer.Option(min=1, help="End after so many screens, not at Ctrl-C.", show_default=False),
    ] = None,
) -> None:
    """Watch a board: latency, tokens/s, memory against the budget, watts, heat, clocks, release and phase."""

    async def watch() -> None:
        async with connect(host, credentials, insecure) as client:
            with Live(console=console(), screen=screens is None, auto_refresh=False) as live:
                await _follow(client, host, live, interval, screens)

    run(watch(), when_stopped="")


async def _follow(client: DeviceClient, host: str, live: Live, interval: float, screens: int | None) -> None:
    """Draws each snapshot; an agent that restarts is waited for, if it was there at all."""
    history, shown = History(), 0
    while True:
        try:
            device, releases = await client.get_device(), await client.list_releases()
            asked_at = asyncio.get_running_loop().time()
            async for snapshot in client.watch_telemetry(interval):
                history.add(snapshot)
                live.update(render(host, device, releases, snapshot, history), refresh=True)
                shown += 1
                if shown == screens:
                    return
                if asyncio.get_running_loop().time() - asked_at >= DEVICE_SECONDS:
                    device, releases = await client.get_device(), await client.list_releases()
                    asked_at = asyncio.get_running_loop().time()
        except LinkError:
            if not shown:
                raise
            await asyncio.sleep(RETRY_SECONDS)

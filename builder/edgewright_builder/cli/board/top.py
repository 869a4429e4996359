"""The top command: one board, live, until Ctrl-C."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.live import Live

from edgewright_builder.cli.boards import open_board
from edgewright_builder.cli.options import Credentials, Host, Insecure
from edgewright_builder.cli.output import console, stoppable
from edgewright_builder.device_client.failures import LinkError
from edgewright_builder.python_api.board import Board
from edgewright_builder.show.top import History, render

DEVICE_SECONDS = 2.0  # the phase and the releases change seldom
RETRY_SECONDS = 1.0


@stoppable("")
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
    with (
        open_board(host, credentials, insecure) as board,
        Live(console=console(), screen=screens is None, auto_refresh=False) as live,
    ):
        _follow(board, live, interval, screens)


def _follow(board: Board, live: Live, interval: float, screens: int | None) -> None:
    """Draws each snapshot; an agent that restarts is waited for, if it was there at all."""
    history, shown = History(), 0
    while True:
        try:
            status, asked_at = board.status(), time.monotonic()
            for snapshot in board.watch_telemetry(interval):
                history.add(snapshot)
                live.update(render(board.address, status, snapshot, history), refresh=True)
                shown += 1
                if shown == screens:
                    return
                if time.monotonic() - asked_at >= DEVICE_SECONDS:
                    status, asked_at = board.status(), time.monotonic()
        except LinkError:
            if not shown:
                raise
            time.sleep(RETRY_SECONDS)

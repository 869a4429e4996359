"""`edgewright calibrate`: predictions for a board learn from what it has measured."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright_builder.cli.boards import open_board
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.cli.output import console, emit, stoppable
from edgewright_builder.show.sheet import print_result

AsServed = Annotated[
    bool,
    typer.Option("--as-served", help="Take the peak as it is: the board has served its longest requests."),
]


@stoppable()
def calibrate(
    host: Host,
    credentials: Credentials = None,
    insecure: Insecure = False,
    as_served: AsServed = False,
    as_json: AsJson = False,
) -> None:
    """Measure an engine's memory, speed and energy on a board, so that later predictions rest on them."""
    with open_board(host, credentials, insecure) as board:
        calibrated = board.calibrate(as_served=as_served)
    emit("calibrate", calibrated, as_json=as_json)
    if not as_json:
        print_result(console(), calibrated)

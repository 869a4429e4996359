"""`edgewright status`: what a board is and does."""

from __future__ import annotations

from edgewright_builder.cli.boards import open_board
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.cli.output import console, emit, stoppable
from edgewright_builder.show.sheet import print_result


@stoppable()
def status(
    host: Host, credentials: Credentials = None, insecure: Insecure = False, as_json: AsJson = False
) -> None:
    """Show what a board is, what it can run and what it serves."""
    with open_board(host, credentials, insecure) as board:
        board_status = board.status()
    emit("status", board_status, as_json=as_json)
    if not as_json:
        print_result(console(), board_status)

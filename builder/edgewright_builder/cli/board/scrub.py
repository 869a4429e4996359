"""`edgewright scrub`: a board verifies everything it stores."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright.errors import RefusedError
from edgewright.sizes import parse_bytes
from edgewright_builder.cli.boards import open_board
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.cli.output import console, emit, stoppable
from edgewright_builder.cli.progress_view import ProgressView
from edgewright_builder.show.sheet import print_result


@stoppable()
def scrub(
    host: Host,
    credentials: Credentials = None,
    insecure: Insecure = False,
    rate: Annotated[
        str | None,
        typer.Option(
            help="Bytes a second at most, e.g. 20MiB. (default: as fast as the disk)", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have a board verify everything it stores. What is corrupt is put in quarantine and must be pushed again."""
    bytes_per_second_max = 0 if rate is None else parse_bytes(rate)
    out = console(as_json=as_json)
    with open_board(host, credentials, insecure) as board, ProgressView(out).shown() as view:
        result = board.scrub(bytes_per_second_max=bytes_per_second_max, on_progress=view)
    emit("scrub", result, as_json=as_json)
    if not as_json:
        print_result(out, result)
    if not result.whole:
        raise RefusedError(f"{host} holds damaged files; push the releases named above again.")

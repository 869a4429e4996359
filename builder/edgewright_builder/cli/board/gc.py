"""`edgewright gc`: frees what no release on a board needs."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright_builder.cli.boards import open_board
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.cli.output import console, emit, stoppable
from edgewright_builder.show.sheet import print_result


@stoppable()
def gc(
    host: Host,
    credentials: Credentials = None,
    insecure: Insecure = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")] = False,
    with_releases: Annotated[
        bool,
        typer.Option(
            "--releases",
            help="Delete all releases but the active and the previous one and what they need, too.",
        ),
    ] = False,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Remove what was found corrupt, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Free what no release on a board needs: blobs nobody asked about for an hour, uploads idle for a day."""
    with open_board(host, credentials, insecure) as board:
        freed = board.gc(releases=with_releases, quarantine=quarantine, dry_run=dry_run)
    emit("gc", freed, as_json=as_json)
    if not as_json:
        print_result(console(), freed)

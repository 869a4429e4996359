"""`edgewright releases`: the releases on a board."""

from __future__ import annotations

from typing import Annotated, TypedDict

import typer

from edgewright_builder.cli.boards import open_board
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.cli.output import console, emit, stoppable
from edgewright_builder.python_api.results.board import BoardRelease
from edgewright_builder.python_api.results.storage import DeletedRelease
from edgewright_builder.show.sheet import print_result


class ReleasesDocument(TypedDict):
    """What was deleted, and what the board holds after that."""

    deleted_releases: tuple[DeletedRelease, ...]
    releases: tuple[BoardRelease, ...]


@stoppable()
def releases(
    host: Host,
    credentials: Credentials = None,
    insecure: Insecure = False,
    delete: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIGEST",
            help="Delete this release first, named by the beginning of its digest; may be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the releases on a board, or delete some of them."""
    with open_board(host, credentials, insecure) as board:
        before = board.releases()
        named = [before.named(digest) for digest in delete or []]  # all of them, before the first is deleted
        deleted = tuple(board.delete(each.release) for each in named)
        left = board.releases() if deleted else before
    document: ReleasesDocument = {"deleted_releases": deleted, "releases": left.releases}
    emit("releases", document, as_json=as_json)
    if not as_json:
        for each in deleted:
            typer.echo(each.line)
        print_result(console(), left)

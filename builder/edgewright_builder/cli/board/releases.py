"""`edgewright releases`: the releases on a board."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from edgewright.v1.deployment_pb2 import Release
from edgewright_builder.cli.connection import as_document, connect, console, emit, run
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.device.releases import Deleted, delete_releases, release_named
from edgewright_builder.show import describe, display


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

    async def work() -> tuple[Sequence[Deleted], list[Release]]:
        async with connect(host, credentials, insecure) as client:
            found = await client.list_releases()
            named = [release_named(found, digest, host) for digest in delete or []]
            deleted = await delete_releases(client, named)
            return deleted, await client.list_releases() if deleted else found

    deleted, left = run(work())
    document = {"releases": [as_document(release) for release in left]}
    emit({**describe.deleted_document(deleted), **document}, as_json=as_json)
    if not as_json:
        for line in describe.deleted_lines(deleted):
            typer.echo(line)
        display.table(console(), describe.RELEASE_COLUMNS, [describe.release_row(each) for each in left])

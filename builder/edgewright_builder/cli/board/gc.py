"""`edgewright gc`: frees what no release on a board needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from edgewright.v1.deployment_pb2 import CollectGarbageResponse
from edgewright_builder.cli.connection import as_document, connect, emit, run
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.device.releases import Deleted, delete_releases, unneeded
from edgewright_builder.show import describe


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

    async def work() -> tuple[Sequence[Deleted], CollectGarbageResponse]:
        async with connect(host, credentials, insecure) as client:
            chosen = unneeded(await client.list_releases()) if with_releases else []
            deleted = await delete_releases(client, chosen, dry_run=dry_run)
            return deleted, await client.collect_garbage(dry_run=dry_run, quarantine=quarantine)

    deleted, garbage = run(work())
    emit({**describe.deleted_document(deleted), **as_document(garbage)}, as_json=as_json)
    if not as_json:
        for line in (*describe.deleted_lines(deleted), *describe.garbage_lines(garbage, dry_run=dry_run)):
            typer.echo(line)

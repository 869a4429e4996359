"""`edgewright scrub`: a board verifies everything it stores."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright.errors import RefusedError
from edgewright.sizes import parse_bytes
from edgewright.v1.deployment_pb2 import ScrubStoreResponse
from edgewright_builder.cli.connection import as_document, connect, console, emit, run
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.run.progress import Reporter
from edgewright_builder.show import describe


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
    reporter = Reporter(console(as_json=as_json))

    async def work() -> ScrubStoreResponse:
        last = ScrubStoreResponse()
        async with connect(host, credentials, insecure) as client:
            with reporter.stage_progress("scrub"):
                async for last in client.scrub_store(bytes_per_second_max):
                    reporter.step(last.bytes, max(last.total_bytes, 1), f"{last.blobs} files")
        return last

    found = run(work())
    emit(as_document(found), as_json=as_json)
    if not as_json:
        typer.echo(describe.scrub_line(found))
    if found.corrupt_blobs or found.damaged_releases:
        raise RefusedError(f"{host} holds damaged files; push the releases named above again.")

"""`edgewright status`: what a board is and does."""

from __future__ import annotations

from edgewright.v1.deployment_pb2 import GetDeviceResponse, Release
from edgewright_builder.cli.connection import as_document, connect, console, emit, run
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.show import describe, display


def status(
    host: Host, credentials: Credentials = None, insecure: Insecure = False, as_json: AsJson = False
) -> None:
    """Show what a board is, what it can run and what it serves."""

    async def work() -> tuple[GetDeviceResponse, list[Release]]:
        async with connect(host, credentials, insecure) as client:
            return await client.get_device(), await client.list_releases()

    device, found = run(work())
    emit(as_document(device), as_json=as_json)
    if not as_json:
        display.facts(
            console(), f"{device.hostname} ({device.profile_id})", describe.device_facts(device, found)
        )

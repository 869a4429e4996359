"""What a board recorded while nobody listened, fetched across links that break: every entry once, in order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from edgewright.v1.telemetry_pb2 import Snapshot
from edgewright_builder.device_client.backoff import Patience
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.failures import LinkError


async def recorded(
    client: DeviceClient, after_sequence: int, patience: Patience
) -> AsyncIterator[tuple[int, Snapshot]]:
    """(sequence, snapshot) of all that was recorded after that number, up to the moment the board is reached last.

    A link that breaks is waited for, and the board asked for what comes after the last entry that arrived. Numbers
    that are missing are entries the board dropped, the oldest first, when its record was full. A board whose record
    began anew has numbers of its own, and sends all of them.
    """
    last = after_sequence
    while True:
        try:
            async with aclosing(client.recorded_telemetry(last)) as entries:
                async for sequence, snapshot in entries:
                    patience.moved()
                    last = sequence
                    yield sequence, snapshot
            return
        except LinkError as error:
            await patience.wait(error)

"""Lets a board fetch from the mirrors its artifact names, before anything is sent by hand."""

from __future__ import annotations

from collections.abc import Callable

from edgewright.errors import OutsideError
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.messages import printable


async def fetch_from_mirrors(client: DeviceClient, artifact: Artifact, note: Callable[[str], None]) -> int:
    """Returns the bytes the board fetched; it lacks the rest, and the caller sends it.

    A link that breaks, or an agent too old to fetch, is no error here. Raises RefusedError and InputError
    as StageRelease would: there is no sense in sending what will be refused.
    """
    if not artifact.manifest.mirrors:
        return 0
    note(f"The board fetches from {artifact.manifest.mirrors[0].url}.")
    fetched_bytes = 0
    try:
        async for step in client.fetch_blobs(artifact.manifest_bytes, artifact.signature_bytes):
            fetched_bytes = step.fetched_bytes
            if step.note:
                note(printable(step.note))
    except OutsideError as error:
        note(f"The board can't fetch: {error}")
    note(f"The board fetched {fetched_bytes / 1e6:.1f} MB from its mirrors.")
    return fetched_bytes

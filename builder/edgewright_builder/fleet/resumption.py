"""Before a rollout goes on: boards may have changed since its journal called them done, so each is asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from edgewright.errors import EdgewrightError
from edgewright.v1.deployment_pb2 import Phase
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.fleet.inventory import FleetDevice
from edgewright_builder.fleet.journal import RolloutJournal
from edgewright_builder.fleet.wave_rules import SUCCESSES

Ask = Callable[[FleetDevice], Awaitable[bool]]  # does it still have what the journal says?


async def forget_outdated(
    devices: Sequence[FleetDevice], journal: RolloutJournal, ask: Ask, parallel: int
) -> list[str]:
    """Forgets the devices that are not as the journal says, so that the rollout begins them; returns their names.

    A board that can't be asked is forgotten too: pushing what it serves already sends nothing, and says why it fails.
    """
    gate = asyncio.Semaphore(parallel)

    async def is_outdated(device: FleetDevice) -> bool:
        async with gate:
            try:
                return not await ask(device)
            except EdgewrightError:
                return True

    known = [device for device in devices if device.name in journal.results]
    done = [device for device in known if journal.results[device.name].outcome in SUCCESSES]
    answers = await asyncio.gather(*map(is_outdated, done))
    outdated = [device.name for device, is_so in zip(done, answers, strict=True) if is_so]
    journal.forget(outdated)
    return outdated


async def serves(client: DeviceClient, release: bytes) -> bool:
    """Whether the board is at rest with this release active."""
    device = await client.get_device()
    return device.active_release == release and device.phase in (Phase.PHASE_IDLE, Phase.PHASE_STAGED)


async def holds(client: DeviceClient, release: bytes) -> bool:
    """Whether the release lies on the board, active or not."""
    return any(each.release == release for each in await client.list_releases())

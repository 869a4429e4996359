"""Brings an artifact to a board: sends what is missing until nothing is, then waits for the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgewright.errors import BusyError
from edgewright.sizes import format_bytes
from edgewright.v1.deployment_pb2 import ReleaseState, WatchDeploymentResponse
from edgewright_builder.artifact.artifact import Artifact, verify_artifact
from edgewright_builder.device_client.backoff import Patience
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.failures import LinkError
from edgewright_builder.device_client.messages import from_message
from edgewright_builder.device_client.verdict import AT_REST, DeploymentVerdict, watch_verdict
from edgewright_builder.push.delta_selection import Deltas, DeltaSources, deltas_from
from edgewright_builder.push.mirrors import fetch_from_mirrors
from edgewright_builder.push.transfer import Transfer, TransferListener, TransferPlan
from edgewright_builder.show.sheet import Grid, Lines, Sheet, shown

if TYPE_CHECKING:
    from typing_extensions import Unpack


PROBE_COLUMNS = ("probe", "kind", "result", "detail")


@dataclass(frozen=True)
class MemoryAdmission:
    """The board's own figures on whether the release fits."""

    predicted_peak_bytes: int
    prediction_error_bytes: int  # half-width of the prediction's interval
    budget_bytes: int
    memory_available_bytes: int


@shown
@dataclass(frozen=True)
class PushResult:
    """What a push did. `verdict` is None if the release was only staged."""

    release: str  # SHA-256 of the manifest, in hex
    plan: TransferPlan
    sent_bytes: int
    resumptions: int
    transfer_seconds: float
    memory: MemoryAdmission
    verdict: DeploymentVerdict | None

    @property
    def committed(self) -> bool:
        """Whether the board now serves the release."""
        return self.verdict is not None and self.verdict.committed

    def _sheet(self) -> Sheet:
        parts: list[Grid | Lines] = [Lines([*self._sent(), f"  predicted peak {self._peak()}"])]
        if self.verdict is None:
            return Sheet((*parts, Lines(["staged; not activated"])))
        if self.verdict.probes:
            parts.append(Grid(PROBE_COLUMNS, [probe.row() for probe in self.verdict.probes]))
        outcome = self.verdict.outcome.replace("_", " ")
        return Sheet((*parts, Lines([f"{outcome}: {self.verdict.message}"])))

    def _sent(self) -> list[str]:
        if not self.sent_bytes:
            return []
        rate = self.sent_bytes / max(self.transfer_seconds, 1e-9) / 1e6
        resumed = f", resumed {self.resumptions} times" if self.resumptions else ""
        return [f"  sent {format_bytes(self.sent_bytes)} at {rate:.1f} MB/s, verified{resumed}"]

    def _peak(self) -> str:
        memory = self.memory
        peak = f"{format_bytes(memory.predicted_peak_bytes)} ± {format_bytes(memory.prediction_error_bytes)}"
        return f"{peak} of the board's {format_bytes(memory.budget_bytes)}"


class PushOptions(TypedDict, total=False):
    """What `push_verified` takes by name, besides the deltas."""

    activate: bool
    force: bool
    confirm_within_seconds: float
    patience_seconds: float
    listener: TransferListener


async def push(
    client: DeviceClient,
    folder: Path,
    public_key: Ed25519PublicKey | None,
    *,
    delta_sources: DeltaSources | None = None,
    **options: Unpack[PushOptions],
) -> PushResult:
    """Verifies the artifact in `folder`, uploads what the board lacks, stages and activates it.

    Where the link drops or the agent restarts, the board is asked what it has and the rest is sent, until
    nothing has moved for `patience_seconds`. With `delta_sources`, what the board has of an earlier artifact
    that is also on this machine is not sent again, and this artifact is kept for later ones. Raises
    InputError for an artifact that was altered, the agent's own errors, and OutsideError if the board can't
    be reached. A release that was rolled back is no error here: the verdict says so.
    """
    artifact = await asyncio.to_thread(verify_artifact, folder, public_key)
    with deltas_from(artifact, delta_sources) as deltas:
        return await push_verified(client, artifact, deltas=deltas, **options)


async def push_verified(
    client: DeviceClient,
    artifact: Artifact,
    *,
    activate: bool = True,
    force: bool = False,
    confirm_within_seconds: float = 0.0,
    patience_seconds: float = 90.0,
    listener: TransferListener = TransferListener(),
    deltas: Deltas | None = None,
) -> PushResult:
    """`push` of an artifact that was verified before, as for the second board of a fleet."""
    transfer = Transfer(client, artifact, Patience(patience_seconds), listener, deltas)
    plan = await transfer.plan()
    listener.planned(plan)
    begin = time.monotonic()
    if plan.missing_bytes:
        await fetch_from_mirrors(client, artifact, listener.note)
    staged = await transfer.run()
    seconds = time.monotonic() - begin
    if deltas is not None:
        await _remember(deltas, listener)
    verdict = None
    if activate:
        release = bytes.fromhex(artifact.digest)
        await _activate(
            client, release, transfer.patience, force=force, confirm_within_seconds=confirm_within_seconds
        )
        verdict = await watch_verdict(client, release, transfer.patience, listener.note)
    return PushResult(
        artifact.digest,
        plan,
        transfer.sent_bytes,
        transfer.resumptions,
        seconds,
        from_message(MemoryAdmission, staged),
        verdict,
    )


async def _remember(deltas: Deltas, listener: TransferListener) -> None:
    try:
        await asyncio.to_thread(deltas.remember)
    except OSError as error:
        listener.note(f"The artifact is not kept for later deltas ({error.strerror}).")


async def _activate(
    client: DeviceClient, release: bytes, patience: Patience, *, force: bool, confirm_within_seconds: float
) -> None:
    """Asks for the activation; returns too where the change under way is to this very release."""
    asked_before = False
    while True:
        try:
            try:
                return await client.activate(
                    release, force=force, confirm_within_seconds=confirm_within_seconds
                )
            except BusyError as busy:
                report = await _report(client)
                if report.candidate_release == release:  # also where the board goes back to it
                    return None
                if asked_before and await _was_heard(client, release, force=force):
                    return None
                if report.phase not in AT_REST:
                    raise
                await patience.wait(busy)  # whatever it was has ended meanwhile
        except LinkError as error:
            asked_before = True  # and perhaps heard: only the answer may be lost
            await patience.wait(error)


async def _report(client: DeviceClient) -> WatchDeploymentResponse:
    """Returns what the board is doing now."""
    async with contextlib.aclosing(client.watch_deployment()) as reports:
        async for report in reports:
            return report
    raise LinkError(f"{client.address} ended its report before it began; see the agent's log.")


async def _was_heard(client: DeviceClient, release: bytes, *, force: bool) -> bool:
    """Whether an activation whose answer was lost has been begun, and perhaps has ended."""
    states = {ReleaseState.RELEASE_STATE_CANDIDATE, ReleaseState.RELEASE_STATE_ACTIVE}
    # Denied: it failed just now and is being rolled back. With force it may have been denied long before.
    states |= set() if force else {ReleaseState.RELEASE_STATE_DENIED}
    return any(each.release == release and each.state in states for each in await client.list_releases())

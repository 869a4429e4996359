"""The client of an agent: every call of the wire contract, with deadlines, retries and our own errors."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from edgewright.address import Address
from edgewright.errors import EdgewrightError
from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import inference_pb2 as inference
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright.v1 import trust_pb2 as trust
from edgewright_builder.device_client.blob_stream import MakeParts, send_stream
from edgewright_builder.device_client.channel import require_credentials
from edgewright_builder.device_client.failures import (
    error_for,
    lost_its_status,
)
from edgewright_builder.device_client.link import DEADLINE_SECONDS, SILENCE_SECONDS_MAX, Link, Stream
from edgewright_builder.device_client.messages import asking
from edgewright_builder.device_client.retries import SOON_SECONDS, OnWait, Retries, hear_nothing

# Staging re-hashes every byte of the release on the board: 4 GB from an SD card take minutes.
STAGE_DEADLINE_SECONDS = 900.0
UNDER_CHANGE = (
    deployment.PHASE_ACTIVATING,
    deployment.PHASE_PREPARING,
    deployment.PHASE_PROBATION,
    deployment.PHASE_ROLLING_BACK,
)

WORK_SECONDS_MAX = 3600.0  # for one prompt of a benchmark, or one file of a scrub
REST_SECONDS_MAX = 4 * 3600.0  # from one change of a deployment to the next; a probation may be long

Response = TypeVar("Response", bound=Message)


class DeviceClient:
    """An open channel to one agent; an async context manager. Calls raise the errors of `failures`.

    Calls that only ask, or that succeed when repeated, are tried again when the link fails. Calls that need the engine
    wait for up to `soon_seconds` while the board starts it or is over capacity; `on_wait` hears why.
    """

    def __init__(
        self,
        address: Address,
        credentials: Path | None,
        *,
        soon_seconds: float = SOON_SECONDS,
        on_wait: OnWait = hear_nothing,
    ) -> None:
        self.address = address
        self._soon_seconds = soon_seconds
        self._on_wait = on_wait
        require_credentials(address, credentials)
        self._link = Link(address, credentials)

    async def __aenter__(self) -> DeviceClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the calls under way and closes the channel."""
        await self._link.close()

    @property
    def reached(self) -> bool:
        """Whether any call has got through, so that address and credentials are right."""
        return self._link.reached

    async def get_device(self) -> deployment.GetDeviceResponse:
        """Returns what the board is, has, can run and is doing."""
        return await self._repeatable(lambda: self._link.deployment.GetDevice, deployment.GetDeviceRequest())

    async def find_missing(self, blobs: Sequence[deployment.Blob]) -> list[deployment.MissingBlob]:
        """Returns which of these blobs, and which of their chunks, the board lacks."""
        request = deployment.FindMissingBlobsRequest(blobs=blobs)
        return list((await self._repeatable(lambda: self._link.deployment.FindMissingBlobs, request)).missing)

    async def write_blob(self, blob: deployment.Blob, parts: MakeParts) -> int:
        """Sends the parts of a blob once the board wants them; returns the bytes the board took.

        `parts` gives encoded WriteBlobRequests. After a LinkError, ask what is missing.
        """
        try:
            received_bytes = await send_stream(await self._link.channel(), blob, parts)
        except grpc.aio.AioRpcError as error:
            raise await self._error_of_stream(error, blob.digest.sha256) from None
        self._link.reached = True
        return received_bytes

    def fetch_blobs(self, manifest: bytes, signature: bytes) -> AsyncIterator[deployment.FetchBlobsResponse]:
        """Has the board fetch what it lacks from the mirrors the manifest names; the last answer is final."""
        request = deployment.FetchBlobsRequest(manifest=manifest, signature=signature)
        return self._link.stream(lambda: self._link.deployment.FetchBlobs, request)

    async def get_trust(self) -> trust.GetTrustResponse:
        """Returns whose releases the board runs, and which of its own it would not take any more."""
        return await self._repeatable(lambda: self._link.trust.GetTrust, trust.GetTrustRequest())

    async def update_trust(self, documents: Sequence[bytes]) -> trust.UpdateTrustResponse:
        """Gives the board newer trust documents, oldest first."""
        return await self._link.once(
            lambda: self._link.trust.UpdateTrust, trust.UpdateTrustRequest(documents=documents)
        )

    async def query_write_status(self, sha256: bytes) -> deployment.QueryWriteStatusResponse:
        """Returns what of an upload would survive a power cut."""
        request = deployment.QueryWriteStatusRequest(sha256=sha256)
        return await self._repeatable(lambda: self._link.deployment.QueryWriteStatus, request)

    async def stage(self, manifest: bytes, signature: bytes) -> deployment.StageReleaseResponse:
        """Has the board verify an uploaded artifact and make it a release."""
        request = deployment.StageReleaseRequest(manifest=manifest, signature=signature)
        return await self._repeatable(
            lambda: self._link.deployment.StageRelease, request, STAGE_DEADLINE_SECONDS
        )

    async def activate(
        self, release: bytes, *, force: bool = False, confirm_within_seconds: float = 0.0
    ) -> None:
        """Begins to put a staged release to work; `watch_deployment` tells how it goes.

        With `confirm_within_seconds` the board rolls back unless `confirm` comes in time.
        """
        with asking("an activation"):
            request = deployment.ActivateReleaseRequest(
                release=release, force=force, confirm_within_seconds=confirm_within_seconds
            )
        await self._link.once(lambda: self._link.deployment.ActivateRelease, request)

    def watch_deployment(self) -> AsyncGenerator[deployment.WatchDeploymentResponse, None]:
        """Yields the phase, and each change of it, until the board is at rest."""
        request = deployment.WatchDeploymentRequest()
        return self._link.stream(lambda: self._link.deployment.WatchDeployment, request, REST_SECONDS_MAX)

    async def roll_back(self) -> bytes:
        """Begins to go back to the previous release, and returns which that is."""
        return (
            await self._link.once(lambda: self._link.deployment.RollBack, deployment.RollBackRequest())
        ).release

    async def list_releases(self) -> list[deployment.Release]:
        """Returns every release on the board."""
        request = deployment.ListReleasesRequest()
        return list((await self._repeatable(lambda: self._link.deployment.ListReleases, request)).releases)

    async def confirm(self, release: bytes) -> None:
        """Keeps the release that waits for it."""
        request = deployment.ConfirmReleaseRequest(release=release)
        await self._repeatable(lambda: self._link.deployment.ConfirmRelease, request)

    async def collect_garbage(
        self, *, dry_run: bool = False, quarantine: bool = False
    ) -> deployment.CollectGarbageResponse:
        """Removes what no release needs and nobody asked about lately."""
        request = deployment.CollectGarbageRequest(dry_run=dry_run, quarantine=quarantine)
        return await self._link.once(lambda: self._link.deployment.CollectGarbage, request)

    def scrub_store(self, bytes_per_second_max: int = 0) -> AsyncIterator[deployment.ScrubStoreResponse]:
        """Has the board read and verify all it stores; the last answer is final."""
        with asking("a scrub"):
            request = deployment.ScrubStoreRequest(bytes_per_second_max=bytes_per_second_max)
        silence_seconds = None if bytes_per_second_max else WORK_SECONDS_MAX
        return self._patient_stream(
            lambda: self._link.deployment.ScrubStore, request, silence_seconds, busy=True
        )

    async def delete_release(self, release: bytes) -> int:
        """Forgets a release; returns the bytes that became free."""
        request = deployment.DeleteReleaseRequest(release=release)
        return (await self._link.once(lambda: self._link.deployment.DeleteRelease, request)).freed_bytes

    def generate(
        self, request: inference.GenerateRequest, *, patient: bool = True
    ) -> AsyncGenerator[inference.GenerateResponse, None]:
        """Yields text as it is generated, then the completion. Closing the iterator frees the engine."""
        stream = self._patient_stream if patient else self._link.stream
        return stream(lambda: self._link.inference.Generate, request)

    async def score(
        self, items: Sequence[inference.ScoreItem], *, deadline_seconds: float
    ) -> list[inference.ScoreItemResult]:
        """Log-likelihoods of continuations under the model that serves."""
        request = inference.ScoreRequest(items=items)
        retries = self._retries(soon_seconds=self._soon_seconds)
        return list(
            (
                await self._repeatable(lambda: self._link.inference.Score, request, deadline_seconds, retries)
            ).items
        )

    async def get_snapshot(self) -> telemetry.Snapshot:
        """Everything measured, as of now."""
        request = telemetry.GetSnapshotRequest()
        return (await self._repeatable(lambda: self._link.telemetry.GetSnapshot, request)).snapshot

    async def recorded_telemetry(
        self, after_sequence: int = 0
    ) -> AsyncGenerator[tuple[int, telemetry.Snapshot], None]:
        """Yields what the board recorded after that sequence number while nobody listened, oldest first."""
        with asking("recorded telemetry"):
            request = telemetry.WatchTelemetryRequest(after_sequence=after_sequence, recorded_only=True)
        async for response in self._link.stream(lambda: self._link.telemetry.WatchTelemetry, request):
            yield response.sequence, response.snapshot

    async def watch_telemetry(self, interval_seconds: float) -> AsyncIterator[telemetry.Snapshot]:
        """Yields a snapshot every `interval_seconds`, for ever."""
        with asking("telemetry"):
            request = telemetry.WatchTelemetryRequest(interval_seconds=interval_seconds)
        silence_seconds = SILENCE_SECONDS_MAX + interval_seconds
        async for response in self._link.stream(
            lambda: self._link.telemetry.WatchTelemetry, request, silence_seconds
        ):
            yield response.snapshot

    def run_benchmark(
        self, request: telemetry.RunBenchmarkRequest
    ) -> AsyncIterator[telemetry.RunBenchmarkResponse]:
        """Yields the progress of a benchmark on the board, then its result; where the link breaks it starts again."""
        method = lambda: self._link.telemetry.RunBenchmark  # noqa: E731 - a channel may be opened anew
        return self._patient_stream(method, request, WORK_SECONDS_MAX, busy=True, begin_anew=True)

    async def _repeatable(
        self,
        method: Callable[[], Callable[..., Awaitable[Response]]],
        request: Message,
        deadline_seconds: float = DEADLINE_SECONDS,
        retries: Retries | None = None,
    ) -> Response:
        retries = retries or self._retries()
        while True:
            try:
                return await self._link.once(method, request, deadline_seconds)
            except EdgewrightError as error:
                await retries.wait(error)

    async def _patient_stream(
        self,
        method: Callable[[], Callable[..., Stream[Any]]],
        request: Message,
        silence_seconds: float | None = SILENCE_SECONDS_MAX,
        *,
        busy: bool = False,
        begin_anew: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """Yields the same, asked again until the board begins; with `begin_anew` also where the link breaks later."""
        retries = self._retries(soon_seconds=self._soon_seconds, busy=busy)
        while True:
            has_begun = False
            try:
                stream = self._link.stream(method, request, silence_seconds)
                async with contextlib.aclosing(stream) as responses:
                    async for response in responses:
                        has_begun = True
                        retries.began()
                        yield response
                return
            except EdgewrightError as error:
                if has_begun and not begin_anew:
                    raise
                await retries.wait(error)

    def _retries(self, *, soon_seconds: float = 0.0, busy: bool = False) -> Retries:
        return Retries(soon_seconds, busy=busy, on_wait=self._on_wait, is_changing=self._is_changing)

    async def _is_changing(self) -> bool:
        """Whether the board serves nothing because it changes releases."""
        return (await self.get_device()).phase in UNDER_CHANGE

    async def _error_of_stream(self, call: grpc.aio.AioRpcError, sha256: bytes) -> EdgewrightError:
        """Returns the board's own refusal, also where the library lost it
        (https://github.com/grpc/grpc/issues/36066).
        """
        error = await self._link.own_error(call)
        if lost_its_status(call):
            with contextlib.suppress(EdgewrightError):  # no status, or no link: the cut-off is all we know
                status = await self.query_write_status(sha256)
                if status.HasField("last_refusal"):
                    return error_for(status.last_refusal.reason, status.last_refusal.message)
        return error

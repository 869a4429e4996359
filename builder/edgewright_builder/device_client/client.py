"""The client of an agent: every call of the wire contract, with deadlines, retries and our own errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from edgewright.address import Address
from edgewright.errors import EdgewrightError, OutsideError
from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import inference_pb2 as inference
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright.v1 import trust_pb2 as trust
from edgewright.v1.deployment_pb2_grpc import DeploymentServiceStub
from edgewright.v1.inference_pb2_grpc import InferenceServiceStub
from edgewright.v1.telemetry_pb2_grpc import TelemetryServiceStub
from edgewright.v1.trust_pb2_grpc import TrustServiceStub
from edgewright_builder.device_client.channel import client_certificate, open_channel, require_credentials
from edgewright_builder.device_client.failures import (
    LinkError,
    distrusts,
    error_for,
    error_of,
    is_refused,
    lost_its_status,
)
from edgewright_builder.device_client.plausibility import ImplausibleError, checks_of
from edgewright_builder.device_client.resolution import numeric_target
from edgewright_builder.device_client.retries import SOON_SECONDS, OnWait, Retries, hear_nothing
from edgewright_builder.device_client.silence import SilenceWatch
from edgewright_builder.device_client.stream import MakeParts, send_stream
from edgewright_builder.device_client.validity import clock_problem

DEADLINE_SECONDS = 30.0
# Staging re-hashes every byte of the release on the board: 4 GB from an SD card take minutes.
STAGE_DEADLINE_SECONDS = 900.0
UNDER_CHANGE = (
    deployment.PHASE_ACTIVATING,
    deployment.PHASE_PROBATION,
    deployment.PHASE_ROLLING_BACK,
)

SILENCE_SECONDS_MAX = 900.0  # of a stream: in a queue, while a long prompt is read, or a mirror is slow
WORK_SECONDS_MAX = 3600.0  # for one prompt of a benchmark, or one file of a scrub
REST_SECONDS_MAX = 4 * 3600.0  # from one change of a deployment to the next; a probation may be long

Response = TypeVar("Response", bound=Message)
ResponseItem = TypeVar("ResponseItem", bound=Message, covariant=True)


class Stream(Protocol[ResponseItem]):
    """A call that answers with many messages."""

    def __aiter__(self) -> AsyncIterator[ResponseItem]: ...
    def cancel(self) -> bool: ...  # noqa: D102


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
        self._credentials = credentials
        self._reached = False
        self._channels: list[grpc.aio.Channel] = []  # calls use the last; others may still carry older calls
        self._target: str | None = None
        self._dialling = asyncio.Lock()
        self._link_broke = False

    async def __aenter__(self) -> DeviceClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the calls under way and closes the channel."""
        for channel in self._channels:
            await channel.close()

    @property
    def reached(self) -> bool:
        """Whether any call has got through, so that address and credentials are right."""
        return self._reached

    async def get_device(self) -> deployment.GetDeviceResponse:
        """Returns what the board is, has, can run and is doing."""
        return await self._repeatable(lambda: self._deployment.GetDevice, deployment.GetDeviceRequest())

    async def find_missing(self, blobs: Sequence[deployment.Blob]) -> list[deployment.MissingBlob]:
        """Returns which of these blobs, and which of their chunks, the board lacks."""
        request = deployment.FindMissingBlobsRequest(blobs=blobs)
        return list((await self._repeatable(lambda: self._deployment.FindMissingBlobs, request)).missing)

    async def write_blob(self, blob: deployment.Blob, parts: MakeParts) -> int:
        """Sends the parts of a blob once the board wants them; returns the bytes the board took.

        `parts` gives encoded WriteBlobRequests. After a LinkError, ask what is missing.
        """
        try:
            await self._dial()
            received_bytes = await send_stream(self._channels[-1], blob, parts)
        except grpc.aio.AioRpcError as error:
            raise await self._error_of_stream(error, blob.digest.sha256) from None
        self._reached = True
        return received_bytes

    def fetch_blobs(self, manifest: bytes, signature: bytes) -> AsyncIterator[deployment.FetchBlobsResponse]:
        """Has the board fetch what it lacks from the mirrors the manifest names; the last answer is final."""
        request = deployment.FetchBlobsRequest(manifest=manifest, signature=signature)
        return self._stream(lambda: self._deployment.FetchBlobs, request)

    async def get_trust(self) -> trust.GetTrustResponse:
        """Returns whose releases the board runs, and which of its own it would not take any more."""
        return await self._repeatable(lambda: self._trust.GetTrust, trust.GetTrustRequest())

    async def update_trust(self, documents: Sequence[bytes]) -> trust.UpdateTrustResponse:
        """Gives the board newer trust documents, oldest first."""
        return await self._once(
            lambda: self._trust.UpdateTrust, trust.UpdateTrustRequest(documents=documents)
        )

    async def query_write_status(self, sha256: bytes) -> deployment.QueryWriteStatusResponse:
        """Returns what of an upload would survive a power cut."""
        request = deployment.QueryWriteStatusRequest(sha256=sha256)
        return await self._repeatable(lambda: self._deployment.QueryWriteStatus, request)

    async def stage(self, manifest: bytes, signature: bytes) -> deployment.StageReleaseResponse:
        """Has the board verify an uploaded artifact and make it a release."""
        request = deployment.StageReleaseRequest(manifest=manifest, signature=signature)
        return await self._repeatable(lambda: self._deployment.StageRelease, request, STAGE_DEADLINE_SECONDS)

    async def activate(
        self, release: bytes, *, force: bool = False, confirm_within_seconds: float = 0.0
    ) -> None:
        """Begins to put a staged release to work; `watch_deployment` tells how it goes.

        With `confirm_within_seconds` the board rolls back unless `confirm` comes in time.
        """
        request = deployment.ActivateReleaseRequest(
            release=release, force=force, confirm_within_seconds=confirm_within_seconds
        )
        await self._once(lambda: self._deployment.ActivateRelease, request)

    def watch_deployment(
        self, *, follow: bool = False
    ) -> AsyncGenerator[deployment.WatchDeploymentResponse, None]:
        """Yields the phase, and each change of it, until the board is at rest."""
        request = deployment.WatchDeploymentRequest(follow=follow)
        return self._stream(lambda: self._deployment.WatchDeployment, request, REST_SECONDS_MAX)

    async def roll_back(self) -> bytes:
        """Begins to go back to the previous release, and returns which that is."""
        return (await self._once(lambda: self._deployment.RollBack, deployment.RollBackRequest())).release

    async def list_releases(self) -> list[deployment.Release]:
        """Returns every release on the board."""
        request = deployment.ListReleasesRequest()
        return list((await self._repeatable(lambda: self._deployment.ListReleases, request)).releases)

    async def confirm(self, release: bytes) -> None:
        """Keeps the release that waits for it."""
        request = deployment.ConfirmReleaseRequest(release=release)
        await self._repeatable(lambda: self._deployment.ConfirmRelease, request)

    async def collect_garbage(
        self, *, dry_run: bool = False, quarantine: bool = False
    ) -> deployment.CollectGarbageResponse:
        """Removes what no release needs and nobody asked about lately."""
        request = deployment.CollectGarbageRequest(dry_run=dry_run, quarantine=quarantine)
        return await self._once(lambda: self._deployment.CollectGarbage, request)

    def scrub_store(self, bytes_per_second_max: int = 0) -> AsyncIterator[deployment.ScrubStoreResponse]:
        """Has the board read and verify all it stores; the last answer is final."""
        request = deployment.ScrubStoreRequest(bytes_per_second_max=bytes_per_second_max)
        silence_seconds = None if bytes_per_second_max else WORK_SECONDS_MAX
        return self._patient_stream(lambda: self._deployment.ScrubStore, request, silence_seconds, busy=True)

    async def delete_release(self, release: bytes) -> int:
        """Forgets a release; returns the bytes that became free."""
        request = deployment.DeleteReleaseRequest(release=release)
        return (await self._once(lambda: self._deployment.DeleteRelease, request)).freed_bytes

    def generate(
        self, request: inference.GenerateRequest, *, patient: bool = True
    ) -> AsyncGenerator[inference.GenerateResponse, None]:
        """Yields text as it is generated, then the completion. Closing the iterator frees the engine."""
        stream = self._patient_stream if patient else self._stream
        return stream(lambda: self._inference.Generate, request)

    async def score(
        self, items: Sequence[inference.ScoreItem], *, deadline_seconds: float
    ) -> list[inference.ScoreItemResult]:
        """Log-likelihoods of continuations under the model that serves."""
        request = inference.ScoreRequest(items=items)
        retries = self._retries(soon_seconds=self._soon_seconds)
        return list(
            (await self._repeatable(lambda: self._inference.Score, request, deadline_seconds, retries)).items
        )

    async def get_snapshot(self) -> telemetry.Snapshot:
        """Everything measured, as of now."""
        request = telemetry.GetSnapshotRequest()
        return (await self._repeatable(lambda: self._telemetry.GetSnapshot, request)).snapshot

    async def recorded_telemetry(
        self, after_sequence: int = 0
    ) -> AsyncGenerator[tuple[int, telemetry.Snapshot], None]:
        """Yields what the board recorded after that sequence number while nobody listened, oldest first."""
        request = telemetry.WatchTelemetryRequest(after_sequence=after_sequence, recorded_only=True)
        async for response in self._stream(lambda: self._telemetry.WatchTelemetry, request):
            yield response.sequence, response.snapshot

    async def watch_telemetry(self, interval_seconds: float) -> AsyncIterator[telemetry.Snapshot]:
        """Yields a snapshot every `interval_seconds`, for ever."""
        request = telemetry.WatchTelemetryRequest(interval_seconds=interval_seconds)
        silence_seconds = SILENCE_SECONDS_MAX + interval_seconds
        async for response in self._stream(lambda: self._telemetry.WatchTelemetry, request, silence_seconds):
            yield response.snapshot

    def run_benchmark(
        self, request: telemetry.RunBenchmarkRequest
    ) -> AsyncIterator[telemetry.RunBenchmarkResponse]:
        """Yields the progress of a benchmark on the board, then its result; where the link breaks it starts again."""
        method = lambda: self._telemetry.RunBenchmark  # noqa: E731 - a channel may be opened anew
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
                return await self._once(method, request, deadline_seconds)
            except EdgewrightError as error:
                await retries.wait(error)

    async def _once(
        self,
        method: Callable[[], Callable[..., Awaitable[Response]]],
        request: Message,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> Response:
        await self._dial()
        try:
            response = await method()(request, timeout=deadline_seconds)
            self._reached = True
            checks_of(request)(response)
            return response
        except grpc.aio.AioRpcError as error:
            raise await self._error(error) from None
        except ImplausibleError as error:
            raise self._implausible(error) from None

    async def _stream(
        self,
        method: Callable[[], Callable[..., Stream[Any]]],
        request: Message,
        silence_seconds: float | None = SILENCE_SECONDS_MAX,
    ) -> AsyncGenerator[Any, None]:
        """Yields the answers. Raises OutsideError after `silence_seconds` without progress."""
        await self._dial()
        call, check = method()(request), checks_of(request)
        with SilenceWatch(call, silence_seconds) as watch:
            try:
                async for response in call:
                    self._reached = True
                    if check(response):
                        watch.moved()
                    yield response
            except grpc.aio.AioRpcError as error:
                raise await self._error(error) from None
            except asyncio.CancelledError:
                if watch.is_over:
                    raise self._silent(silence_seconds) from None
                raise
            except ImplausibleError as error:
                raise self._implausible(error) from None
            finally:
                call.cancel()

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
                stream = self._stream(method, request, silence_seconds)
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

    async def _dial(self) -> None:
        """Opens the channel; another one if the link broke and the host has other addresses by now."""
        async with self._dialling:
            if self._channels and not self._link_broke:
                return
            try:
                target = await numeric_target(self.address)
            except LinkError:
                if not self._channels:
                    raise
                return  # the name may be gone as long as the board is away; its addresses may still be right
            self._link_broke = False
            if not self._channels or target != self._target:
                self._target = target
                self._use(open_channel(self.address, self._credentials, target))

    def _use(self, channel: grpc.aio.Channel) -> None:
        self._channels.append(channel)
        self._deployment = DeploymentServiceStub(channel)
        self._inference = InferenceServiceStub(channel)
        self._telemetry = TelemetryServiceStub(channel)
        self._trust = TrustServiceStub(channel)

    def _retries(self, *, soon_seconds: float = 0.0, busy: bool = False) -> Retries:
        return Retries(soon_seconds, busy=busy, on_wait=self._on_wait, is_changing=self._is_changing)

    async def _is_changing(self) -> bool:
        """Whether the board serves nothing because it changes releases."""
        return (await self.get_device()).phase in UNDER_CHANGE

    async def _error_of_stream(self, call: grpc.aio.AioRpcError, sha256: bytes) -> EdgewrightError:
        """Returns the board's own refusal, also where the library lost it
        (https://github.com/grpc/grpc/issues/36066).
        """
        error = await self._error(call)
        if lost_its_status(call):
            with contextlib.suppress(EdgewrightError):  # no status, or no link: the cut-off is all we know
                status = await self.query_write_status(sha256)
                if status.HasField("last_refusal"):
                    return error_for(status.last_refusal.reason, status.last_refusal.message)
        return error

    def _implausible(self, error: ImplausibleError) -> OutsideError:
        return OutsideError(
            f"{self.address} answers what no agent says: {error}. Check that an Edgewright agent of this version "
            "listens there, and its log."
        )

    def _silent(self, seconds: float | None) -> OutsideError:
        return OutsideError(
            f"{self.address} keeps the call open and has not got on for {seconds:.0f} s; see the agent's log and "
            "restart it."
        )

    async def _error(self, call: grpc.aio.AioRpcError) -> EdgewrightError:
        error = error_of(call, self.address, secure=self._credentials is not None, reached=self._reached)
        self._link_broke = self._link_broke or isinstance(error, LinkError)
        if self._credentials is not None and not self._reached and (is_refused(call) or distrusts(call)):
            files = client_certificate(self._credentials), self._credentials / "ca.pem"
            problem = await clock_problem(self.address, *files, is_refused=is_refused(call))
            return OutsideError(problem) if problem else error
        return error

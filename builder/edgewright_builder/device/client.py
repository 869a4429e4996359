"""The one door to an agent: every call of the wire contract, with deadlines, retries and our own errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import inference_pb2 as inference
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright.v1.deployment_pb2_grpc import DeploymentServiceStub
from edgewright.v1.inference_pb2_grpc import InferenceServiceStub
from edgewright.v1.telemetry_pb2_grpc import TelemetryServiceStub
from edgewright_agent.address import Address
from edgewright_agent.errors import EdgewrightError
from edgewright_builder.device.channel import open_channel
from edgewright_builder.device.failures import LinkError, error_of
from edgewright_builder.device.patience import jittered_seconds

DEADLINE_SECONDS = 30.0
# Staging re-hashes every byte of the release on the board: 4 GB from an SD card take minutes.
STAGE_DEADLINE_SECONDS = 900.0
RETRIES = 4

Response = TypeVar("Response", bound=Message)
ResponseItem = TypeVar("ResponseItem", bound=Message, covariant=True)


class Stream(Protocol[ResponseItem]):
    """A call that answers with many messages."""

    def __aiter__(self) -> AsyncIterator[ResponseItem]: ...
    def cancel(self) -> bool: ...  # noqa: D102


class DeviceClient:
    """An open channel to one agent; an async context manager. Calls raise the errors of `failures`.

    Calls that only ask, or that succeed when repeated, are tried again when the link fails.
    """

    def __init__(self, address: Address, credentials: Path | None) -> None:
        self.address = address
        self._secure = credentials is not None
        self._reached = False
        self._channel = open_channel(address, credentials)
        self._deployment = DeploymentServiceStub(self._channel)
        self._inference = InferenceServiceStub(self._channel)
        self._telemetry = TelemetryServiceStub(self._channel)

    async def __aenter__(self) -> DeviceClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def get_device(self) -> deployment.GetDeviceResponse:
        """What the board is, has, can run and is doing."""
        return await self._repeatable(self._deployment.GetDevice, deployment.GetDeviceRequest())

    async def find_missing(self, blobs: Sequence[deployment.Blob]) -> list[deployment.MissingBlob]:
        """Which of these blobs, and which of their chunks, the board lacks."""
        request = deployment.FindMissingBlobsRequest(blobs=blobs)
        return list((await self._repeatable(self._deployment.FindMissingBlobs, request)).missing)

    async def write_blob(self, messages: AsyncIterable[deployment.WriteBlobRequest]) -> int:
        """Sends one blob; returns the bytes the board took. After a LinkError, ask what is missing."""
        try:
            return (await self._deployment.WriteBlob(messages.__aiter__())).received_bytes
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None

    async def query_write_status(self, sha256: bytes) -> deployment.QueryWriteStatusResponse:
        """What of an upload would survive a power cut."""
        request = deployment.QueryWriteStatusRequest(sha256=sha256)
        return await self._repeatable(self._deployment.QueryWriteStatus, request)

    async def stage(self, manifest: bytes, signature: bytes) -> deployment.StageReleaseResponse:
        """Has the board verify an uploaded artifact and make it a release."""
        request = deployment.StageReleaseRequest(manifest=manifest, signature=signature)
        return await self._repeatable(self._deployment.StageRelease, request, STAGE_DEADLINE_SECONDS)

    async def activate(self, release: bytes, *, force: bool = False) -> None:
        """Begins to put a staged release to work; `watch_deployment` tells how it goes."""
        request = deployment.ActivateReleaseRequest(release=release, force=force)
        await self._once(self._deployment.ActivateRelease, request)

    def watch_deployment(self, *, follow: bool = False) -> AsyncIterator[deployment.WatchDeploymentResponse]:
        """The phase, and each change of it, until the board is at rest."""
        request = deployment.WatchDeploymentRequest(follow=follow)
        return self._stream(self._deployment.WatchDeployment(request))

    async def roll_back(self) -> bytes:
        """Begins to go back to the previous release, and returns which that is."""
        return (await self._once(self._deployment.RollBack, deployment.RollBackRequest())).release

    async def list_releases(self) -> list[deployment.Release]:
        """Every release on the board."""
        request = deployment.ListReleasesRequest()
        return list((await self._repeatable(self._deployment.ListReleases, request)).releases)

    async def delete_release(self, release: bytes) -> int:
        """Forgets a release; returns the bytes that became free."""
        request = deployment.DeleteReleaseRequest(release=release)
        return (await self._once(self._deployment.DeleteRelease, request)).freed_bytes

    def generate(self, request: inference.GenerateRequest) -> AsyncIterator[inference.GenerateResponse]:
        """Text as it is generated, then the completion. Closing the iterator frees the engine."""
        return self._stream(self._inference.Generate(request))

    async def score(
        self, items: Sequence[inference.ScoreItem], *, deadline_seconds: float
    ) -> list[inference.ScoreItemResult]:
        """Log-likelihoods of continuations under the model that serves."""
        request = inference.ScoreRequest(items=items)
        return list((await self._repeatable(self._inference.Score, request, deadline_seconds)).items)

    async def get_snapshot(self) -> telemetry.Snapshot:
        """Everything measured, as of now."""
        request = telemetry.GetSnapshotRequest()
        return (await self._repeatable(self._telemetry.GetSnapshot, request)).snapshot

    async def watch_telemetry(self, interval_seconds: float) -> AsyncIterator[telemetry.Snapshot]:
        """A snapshot every `interval_seconds`, for ever."""
        request = telemetry.WatchTelemetryRequest(interval_seconds=interval_seconds)
        async for response in self._stream(self._telemetry.WatchTelemetry(request)):
            yield response.snapshot

    def run_benchmark(
        self, request: telemetry.RunBenchmarkRequest
    ) -> AsyncIterator[telemetry.RunBenchmarkResponse]:
        """Progress of a benchmark on the board, then its result."""
        return self._stream(self._telemetry.RunBenchmark(request))

    async def _repeatable(
        self,
        method: Callable[..., Awaitable[Response]],
        request: Message,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> Response:
        for attempt in range(RETRIES):
            try:
                return await self._once(method, request, deadline_seconds)
            except LinkError:
                await asyncio.sleep(jittered_seconds(attempt, base_seconds=0.2, cap_seconds=2.0))
        return await self._once(method, request, deadline_seconds)

    async def _once(
        self,
        method: Callable[..., Awaitable[Response]],
        request: Message,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> Response:
        try:
            response = await method(request, timeout=deadline_seconds)
            self._reached = True
            return response
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None

    async def _stream(self, call: Stream[Any]) -> AsyncIterator[Any]:
        try:
            async for response in call:
                self._reached = True
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None
        finally:
            call.cancel()

    def _error(self, call: grpc.aio.AioRpcError) -> EdgewrightError:
        return error_of(call, self.address, secure=self._secure, reached=self._reached)

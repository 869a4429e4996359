"""A device in memory: a real gRPC server on port 0 that keeps the wire contract and fails on command."""

# ruff: noqa: N802 (gRPC names its methods)

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from edgewright.address import Address
from edgewright.manifest import parse_manifest
from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import inference_pb2 as inference
from edgewright.v1 import telemetry_pb2 as telemetry
from edgewright.v1.deployment_pb2_grpc import (
    DeploymentServiceServicer,
    add_DeploymentServiceServicer_to_server,
)
from edgewright.v1.inference_pb2_grpc import InferenceServiceServicer, add_InferenceServiceServicer_to_server
from edgewright.v1.telemetry_pb2_grpc import TelemetryServiceServicer, add_TelemetryServiceServicer_to_server

LINK_BREAKS = telemetry.RunBenchmarkResponse()  # in the place of an event of a benchmark
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass
class Board:
    """What the simulated board holds, what it has seen, and what it shall do wrong."""

    chunks: dict[bytes, bytes] = field(default_factory=dict)
    blobs: set[bytes] = field(default_factory=set)
    staged: set[bytes] = field(default_factory=set)
    active: bytes = b""
    calls: list[str] = field(default_factory=list)
    received_bytes: int = 0  # of parts, over all calls
    part_bytes_max: int = 0
    drop_after_bytes: list[int] = field(default_factory=list)  # each ends one WriteBlob like a lost link
    refuse: dict[str, list[tuple[grpc.StatusCode, str]]] = field(
        default_factory=dict
    )  # call → errors to give
    verdict: list[deployment.WatchDeploymentResponse] | None = None  # None: committed
    snapshots: list[telemetry.Snapshot] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)  # of Generate
    benchmark: list[telemetry.RunBenchmarkResponse] = field(default_factory=list)
    benchmark_repeats: list[list[telemetry.RunBenchmarkResponse]] = field(default_factory=list)  # before it
    benchmark_requests: list[telemetry.RunBenchmarkRequest] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    corrupt: bool = False  # a scrub finds something
    cancelled: bool = False  # a Generate was given up by its caller
    engine: str = "fake"
    releases: list[deployment.Release] = field(default_factory=list)  # besides those staged
    deleted: list[bytes] = field(default_factory=list)
    phase: deployment.Phase.ValueType = deployment.PHASE_IDLE  # what GetDevice says
    engine_starting: bool = False  # the active release does not answer yet


@asynccontextmanager
async def simulated_device(
    board: Board, *, credentials: grpc.ServerCredentials | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Address]:
    """Serves `board` on loopback while the context is open."""
    server = grpc.aio.server()
    add_DeploymentServiceServicer_to_server(_Deployment(board), server)
    add_InferenceServiceServicer_to_server(_Inference(board), server)
    add_TelemetryServiceServicer_to_server(_Telemetry(board), server)
    name = f"{host}:{port}"
    bound = server.add_secure_port(name, credentials) if credentials else server.add_insecure_port(name)
    await server.start()
    try:
        yield Address(host, bound)
    finally:
        await server.stop(None)


@contextmanager
def simulated_in_thread(board: Board) -> Iterator[Address]:
    """The same, served by a thread of its own: commands bring their own event loop."""
    addresses: list[Address] = []
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with simulated_device(board) as address:
            addresses.append(address)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    assert ready.wait(10)
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def fail(context: Context, code: grpc.StatusCode, reason: str, message: str) -> NoReturn:
    """Ends a call as an agent does: a sentence, and the reason in the details."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="edgewright"))
    status = status_pb2.Status(code=code.value[0], message=message, details=[detail])
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("unreachable")


async def begin(board: Board, context: Context, name: str) -> None:
    board.calls.append(name)
    if board.refuse.get(name):
        code, reason = board.refuse[name].pop(0)
        if reason:
            await fail(context, code, reason, f"{name} is refused by the simulator")
        await context.abort(code, "injected")


class _Deployment(DeploymentServiceServicer):
    def __init__(self, board: Board) -> None:
        self._board = board

    async def GetDevice(
        self, request: deployment.GetDeviceRequest, context: Context
    ) -> deployment.GetDeviceResponse:
        await begin(self._board, context, "GetDevice")
        if context.time_remaining() is None:
            await fail(context, grpc.StatusCode.INVALID_ARGUMENT, "DEADLINE_MISSING", "no deadline")
        engine = deployment.EngineInfo(kind=self._board.engine, version="1", available=True)
        return deployment.GetDeviceResponse(
            agent_version="0.1.0", profile_id="this-host", hostname="board-7", machine="aarch64", cpu_cores=6,
            memory_total_bytes=8 << 30, memory_available_bytes=6 << 30, budget_bytes=5 << 30,
            store_free_bytes=1 << 36, engines=[engine], phase=self._board.phase,
            active_release=self._board.active, release_counter_floor=1,
        )  # fmt: skip

    async def FindMissingBlobs(
        self, request: deployment.FindMissingBlobsRequest, context: Context
    ) -> deployment.FindMissingBlobsResponse:
        await begin(self._board, context, "FindMissingBlobs")
        missing = [
            self._missing(blob) for blob in request.blobs if blob.digest.sha256 not in self._board.blobs
        ]
        return deployment.FindMissingBlobsResponse(missing=missing)

    def _missing(self, blob: deployment.Blob) -> deployment.MissingBlob:
        absent = [i for i, chunk in enumerate(blob.chunks) if chunk.sha256 not in self._board.chunks]
        return deployment.MissingBlob(
            sha256=blob.digest.sha256,
            chunks=[deployment.ChunkRange(first=index, count=1) for index in absent],
            missing_bytes=sum(blob.chunks[index].size_bytes for index in absent),
        )

    async def WriteBlob(
        self, requests: AsyncIterator[deployment.WriteBlobRequest], context: Context
    ) -> deployment.WriteBlobResponse:
        board = self._board
        await begin(board, context, "WriteBlob")
        blob, received, buffer = deployment.Blob(), 0, b""
        drop_at = None
        async for request in requests:
            if request.HasField("blob"):
                blob = request.blob
                if blob.digest.sha256 in board.blobs:
                    return deployment.WriteBlobResponse()
                if board.drop_after_bytes and blob.digest.size_bytes >= board.drop_after_bytes[0]:
                    drop_at = board.drop_after_bytes.pop(0)
                await context.send_initial_metadata((("edgewright-accepted", ""),))
                continue
            part = request.part
            assert part.offset_bytes == len(buffer)
            buffer += part.data
            received += len(part.data)
            board.received_bytes += len(part.data)
            board.part_bytes_max = max(board.part_bytes_max, len(part.data))
            if drop_at is not None and received >= drop_at:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            if len(buffer) == blob.chunks[part.chunk].size_bytes:
                digest = hashlib.sha256(buffer).digest()
                if digest != blob.chunks[part.chunk].sha256:
                    await fail(context, grpc.StatusCode.INVALID_ARGUMENT, "DIGEST_MISMATCH", "wrong chunk")
                board.chunks[digest], buffer = buffer, b""
        whole = b"".join(board.chunks[chunk.sha256] for chunk in blob.chunks)
        assert hashlib.sha256(whole).digest() == blob.digest.sha256
        board.blobs.add(blob.digest.sha256)
        return deployment.WriteBlobResponse(received_bytes=received)

    async def QueryWriteStatus(
        self, request: deployment.QueryWriteStatusRequest, context: Context
    ) -> deployment.QueryWriteStatusResponse:
        await begin(self._board, context, "QueryWriteStatus")
        if request.sha256 not in self._board.blobs:
            await fail(context, grpc.StatusCode.NOT_FOUND, "UPLOAD_UNKNOWN", "no such upload")
        return deployment.QueryWriteStatusResponse(complete=True)

    async def StageRelease(
        self, request: deployment.StageReleaseRequest, context: Context
    ) -> deployment.StageReleaseResponse:
        await begin(self._board, context, "StageRelease")
        absent = [
            f
            for f in parse_manifest(request.manifest).files
            if bytes.fromhex(f.sha256) not in self._board.blobs
        ]
        if absent:
            await fail(context, grpc.StatusCode.FAILED_PRECONDITION, "BLOB_MISSING", "blobs are not here")
        release = hashlib.sha256(request.manifest).digest()
        self._board.staged.add(release)
        memory = deployment.MemoryVerdict(predicted_peak_bytes=1 << 20, budget_bytes=5 << 30)
        return deployment.StageReleaseResponse(release=release, memory=memory)

    async def ActivateRelease(
        self, request: deployment.ActivateReleaseRequest, context: Context
    ) -> deployment.ActivateReleaseResponse:
        await begin(self._board, context, "ActivateRelease")
        assert request.release in self._board.staged
        if self._board.verdict is None:
            self._board.active = request.release
        return deployment.ActivateReleaseResponse()

    async def WatchDeployment(
        self, request: deployment.WatchDeploymentRequest, context: Context
    ) -> AsyncIterator[deployment.WatchDeploymentResponse]:
        await begin(self._board, context, "WatchDeployment")
        if self._board.verdict is not None:
            for event in self._board.verdict:
                yield event
            return
        yield deployment.WatchDeploymentResponse(phase=deployment.PHASE_PROBATION, message="probing")
        ready = deployment.ProbeResult(name="ready", required=True, passed=True, detail="in 0.1 s")
        yield deployment.WatchDeploymentResponse(
            phase=deployment.PHASE_IDLE, active_release=self._board.active, message="it is active",
            outcome=deployment.OUTCOME_COMMITTED, probes=[ready],
        )  # fmt: skip

    async def RollBack(
        self, request: deployment.RollBackRequest, context: Context
    ) -> deployment.RollBackResponse:
        await begin(self._board, context, "RollBack")
        await fail(
            context, grpc.StatusCode.FAILED_PRECONDITION, "NO_PREVIOUS_RELEASE", "nothing to go back to"
        )

    async def ListReleases(
        self, request: deployment.ListReleasesRequest, context: Context
    ) -> deployment.ListReleasesResponse:
        await begin(self._board, context, "ListReleases")
        return deployment.ListReleasesResponse(
            releases=[
                *self._board.releases,
                *(self._release(release) for release in sorted(self._board.staged)),
            ]
        )

    def _release(self, release: bytes) -> deployment.Release:
        active, staged = deployment.RELEASE_STATE_ACTIVE, deployment.RELEASE_STATE_STAGED
        state = active if release == self._board.active else staged
        return deployment.Release(release=release, name="tiny", state=state)

    async def DeleteRelease(
        self, request: deployment.DeleteReleaseRequest, context: Context
    ) -> deployment.DeleteReleaseResponse:
        await begin(self._board, context, "DeleteRelease")
        self._board.staged.discard(request.release)
        self._board.deleted.append(request.release)
        return deployment.DeleteReleaseResponse(freed_bytes=700)

    async def FetchBlobs(
        self, request: deployment.FetchBlobsRequest, context: Context
    ) -> AsyncIterator[deployment.FetchBlobsResponse]:
        await begin(self._board, context, "FetchBlobs")
        yield deployment.FetchBlobsResponse()

    async def ConfirmRelease(
        self, request: deployment.ConfirmReleaseRequest, context: Context
    ) -> deployment.ConfirmReleaseResponse:
        await begin(self._board, context, "ConfirmRelease")
        return deployment.ConfirmReleaseResponse()

    async def CollectGarbage(
        self, request: deployment.CollectGarbageRequest, context: Context
    ) -> deployment.CollectGarbageResponse:
        await begin(self._board, context, "CollectGarbage")
        return deployment.CollectGarbageResponse(
            freed_bytes=0 if request.dry_run else 2048, blobs=1, uploads=2
        )

    async def ScrubStore(
        self, request: deployment.ScrubStoreRequest, context: Context
    ) -> AsyncIterator[deployment.ScrubStoreResponse]:
        await begin(self._board, context, "ScrubStore")
        corrupt = [b"\5" * 32] if self._board.corrupt else []
        yield deployment.ScrubStoreResponse(blobs=1, bytes=512, total_bytes=1024)
        yield deployment.ScrubStoreResponse(
            blobs=2, bytes=1024, total_bytes=1024, corrupt_blobs=corrupt, done=True
        )


class _Inference(InferenceServiceServicer):
    def __init__(self, board: Board) -> None:
        self._board = board

    async def Generate(
        self, request: inference.GenerateRequest, context: Context
    ) -> AsyncIterator[inference.GenerateResponse]:
        await begin(self._board, context, "Generate")
        self._board.prompts.append(request.prompt)
        try:
            tokens = self._board.tokens[: request.max_tokens or None]
            for index, text in enumerate(tokens):
                yield inference.GenerateResponse(deltas=[inference.TextDelta(text=text, token=index)])
                await asyncio.sleep(0.01)
        except (asyncio.CancelledError, GeneratorExit):  # in its sleep, or while a token is sent
            self._board.cancelled = True
            raise
        completion = inference.Completion(
            finish_reason=inference.FINISH_REASON_STOP, prompt_tokens=len(request.prompt.split()) or 3,
            generated_tokens=len(tokens), time_to_first_token_seconds=0.01,
        )  # fmt: skip
        yield inference.GenerateResponse(completion=completion)

    async def Score(self, request: inference.ScoreRequest, context: Context) -> inference.ScoreResponse:
        """The log-likelihood of a continuation is minus its length."""
        await begin(self._board, context, "Score")
        assert context.time_remaining() is not None
        return inference.ScoreResponse(
            items=[
                inference.ScoreItemResult(
                    continuations=[
                        inference.ContinuationScore(log_likelihood=-float(len(text)), tokens=len(text))
                        for text in item.continuations
                    ]
                )
                for item in request.items
            ]
        )


class _Telemetry(TelemetryServiceServicer):
    def __init__(self, board: Board) -> None:
        self._board = board

    async def GetSnapshot(
        self, request: telemetry.GetSnapshotRequest, context: Context
    ) -> telemetry.GetSnapshotResponse:
        await begin(self._board, context, "GetSnapshot")
        snapshot = telemetry.Snapshot()
        if self._board.snapshots:
            snapshot.CopyFrom(self._board.snapshots[0])
        if not self._board.engine_starting:
            snapshot.active_release = snapshot.active_release or self._board.active
        return telemetry.GetSnapshotResponse(snapshot=snapshot)

    async def WatchTelemetry(
        self, request: telemetry.WatchTelemetryRequest, context: Context
    ) -> AsyncIterator[telemetry.WatchTelemetryResponse]:
        await begin(self._board, context, "WatchTelemetry")
        for number, snapshot in enumerate(self._board.snapshots, 1):
            sequence = number if request.HasField("after_sequence") else 0
            yield telemetry.WatchTelemetryResponse(snapshot=snapshot, sequence=sequence)

    async def RunBenchmark(
        self, request: telemetry.RunBenchmarkRequest, context: Context
    ) -> AsyncIterator[telemetry.RunBenchmarkResponse]:
        await begin(self._board, context, "RunBenchmark")
        self._board.benchmark_requests.append(request)
        repeats = self._board.benchmark_repeats
        for event in repeats.pop(0) if repeats else self._board.benchmark:
            if event is LINK_BREAKS:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            yield event

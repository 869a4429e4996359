"""TelemetryService: messages in, messages out."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio

from edgewright.errors import BusyError, InputError, OutsideError
from edgewright.v1 import telemetry_pb2, telemetry_pb2_grpc
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.benchmark.benchmark import run_benchmark
from edgewright_agent.benchmark.load import BenchmarkPlan
from edgewright_agent.benchmark.proto import benchmark_to_proto
from edgewright_agent.deployment.deployer import Deployer
from edgewright_agent.engines import Finish, GenerationRequest, Token
from edgewright_agent.inference import Inference
from edgewright_agent.telemetry.exporters.recorder import Recorder
from edgewright_agent.telemetry.sampling.monitor import Telemetry

Context = grpc.aio.ServicerContext[Any, Any]
INTERVAL_SECONDS = (0.1, 60.0)
CHANGED = "The release or its engine changed during the benchmark, which measured both. Run it again."
ENTRIES_AT_ONCE = 64
SHARED_SECONDS = INTERVAL_SECONDS[0] / 2  # so old may a watcher's snapshot be


class TelemetryService(telemetry_pb2_grpc.TelemetryServiceServicer):
    """See `telemetry.proto` for what each call promises."""

    def __init__(
        self,
        telemetry: Telemetry,
        deployer: Deployer,
        inference: Inference,
        recorder: Recorder,
        snapshot: Callable[[], telemetry_pb2.Snapshot],
    ) -> None:
        self._telemetry = telemetry
        self._deployer = deployer
        self._inference = inference
        self._recorder = recorder
        self._snapshot = snapshot
        self._benchmarking = asyncio.Lock()
        self._sharing = asyncio.Lock()
        self._shared: tuple[float, telemetry_pb2.Snapshot] | None = None  # when it was taken, and it

    async def GetSnapshot(  # noqa: N802
        self, request: telemetry_pb2.GetSnapshotRequest, context: Context
    ) -> telemetry_pb2.GetSnapshotResponse:
        """Gives everything measured, as of now."""
        return telemetry_pb2.GetSnapshotResponse(snapshot=await asyncio.to_thread(self._snapshot))

    async def WatchTelemetry(  # noqa: N802
        self, request: telemetry_pb2.WatchTelemetryRequest, context: Context
    ) -> AsyncIterator[telemetry_pb2.WatchTelemetryResponse]:
        """Streams what was recorded, if asked for; then a snapshot every interval."""
        interval_seconds = request.interval_seconds or 1.0
        low, high = INTERVAL_SECONDS
        if not low <= interval_seconds <= high:
            raise InputError(f"The interval is {interval_seconds:g} s; it must be {low:g} to {high:g} s.")
        if request.HasField("after_sequence"):
            entries = self._recorder.recorded(request.after_sequence)
            while some := await asyncio.to_thread(_some, entries):  # waits for the disk
                for sequence, snapshot in some:
                    yield telemetry_pb2.WatchTelemetryResponse(snapshot=snapshot, sequence=sequence)
        while not request.recorded_only:
            yield telemetry_pb2.WatchTelemetryResponse(snapshot=await self._shared_snapshot())
            await asyncio.sleep(interval_seconds)

    async def RunBenchmark(  # noqa: N802
        self, request: telemetry_pb2.RunBenchmarkRequest, context: Context
    ) -> AsyncIterator[telemetry_pb2.RunBenchmarkResponse]:
        """Streams progress, then the result."""
        if self._benchmarking.locked():
            raise BusyError("A benchmark is under way. Try again when it has ended.")
        async with self._benchmarking:
            serving = self._deployer.serving()
            manifest = serving.release.manifest
            engine_files = [
                file for file in manifest.files if file.path.startswith(f"{manifest.engine.folder}/")
            ]
            plan = _plan_from(request)
            events = run_benchmark(
                plan,
                self._generate,
                self._telemetry,
                context_tokens=manifest.limits.context_tokens,
                weights_bytes=sum(file.size_bytes for file in engine_files),
                requests_together=await serving.engine.requests_together(
                    manifest.limits.concurrency, plan.request_tokens
                ),
            )
            async with contextlib.aclosing(events):
                async for event in events:
                    if self._deployer.serving() is not serving:
                        raise OutsideError(CHANGED, Reason.REASON_ENGINE_FAILED)
                    yield benchmark_to_proto(event)

    async def _shared_snapshot(self) -> telemetry_pb2.Snapshot:
        """Takes one snapshot for all who watch at this moment: a hundred watchers cost little more than one."""
        async with self._sharing:
            if self._shared is None or time.monotonic() - self._shared[0] > SHARED_SECONDS:
                snapshot = await asyncio.to_thread(self._snapshot)
                self._shared = time.monotonic(), snapshot
            return self._shared[1]

    async def _generate(self, request: GenerationRequest) -> AsyncGenerator[Token | Finish, None]:
        async with contextlib.aclosing(self._inference.generate(request, patient=True)) as events:
            async for event in events:
                yield event if isinstance(event, Token) else event.finish


def _plan_from(request: telemetry_pb2.RunBenchmarkRequest) -> BenchmarkPlan:
    return BenchmarkPlan(
        prompts=request.prompts,
        input_tokens=request.input_tokens,
        output_tokens=request.output_tokens,
        concurrency=request.concurrency,
        warmup_prompts=request.warmup_prompts,
        seed=request.seed,
    )


def _some(entries: Iterator[tuple[int, telemetry_pb2.Snapshot]]) -> list[tuple[int, telemetry_pb2.Snapshot]]:
    return list(itertools.islice(entries, ENTRIES_AT_ONCE))

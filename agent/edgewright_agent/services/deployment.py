"""DeploymentService: messages in, messages out."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import socket
import threading
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil

from edgewright import __version__
from edgewright.errors import RefusedError
from edgewright.v1 import deployment_pb2, deployment_pb2_grpc
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment.deployer import Deployer
from edgewright_agent.deployment.release_admission import AdmissionPolicy, AdmissionVerdict, judge_admission
from edgewright_agent.deployment.revocation import check_activation, check_roll_back
from edgewright_agent.runtime.threads import run_in_thread
from edgewright_agent.services.translation import messages
from edgewright_agent.services.translation.status import abort
from edgewright_agent.services.uploads.parts import WriteRequest
from edgewright_agent.services.uploads.receiving import ACCEPTED_KEY, BlobReceiver
from edgewright_agent.store import Store, WriteStatus
from edgewright_agent.store.scrub import Scrubbed, scrub

Context = grpc.aio.ServicerContext[Any, Any]
_MISSING_MAX = 100


class DeploymentService(deployment_pb2_grpc.DeploymentServiceServicer):
    """See `deployment.proto` for what each call promises."""

    def __init__(self, policy: AdmissionPolicy, store: Store, deployer: Deployer) -> None:
        self._policy = policy
        self._store = store
        self._receiver = BlobReceiver(store)
        self._deployer = deployer

    async def GetDevice(  # noqa: N802
        self, request: deployment_pb2.GetDeviceRequest, context: Context
    ) -> deployment_pb2.GetDeviceResponse:
        """Says what this board is, has, can run and is doing."""
        state, memory = self._deployer.state, psutil.virtual_memory()
        engines = await asyncio.to_thread(self._policy.engines)
        return deployment_pb2.GetDeviceResponse(
            agent_version=__version__,
            profile_id=self._policy.profile_id,
            hostname=socket.gethostname(),
            machine=platform.machine(),
            board_model=_board_model(),
            cpu_cores=psutil.cpu_count() or 0,
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            budget_bytes=self._policy.budget_bytes,
            store_free_bytes=await asyncio.to_thread(self._store.free_bytes),
            engines=[messages.engine_to(engine) for engine in engines],
            phase=messages.phase_to(self._deployer.status),
            active_release=messages.sha256_to(state.active),
            previous_release=messages.sha256_to(state.previous),
            release_counter_floor=state.counter_floor,
            engine_kernels=self._deployer.kernels(),
            quarantined_files=await asyncio.to_thread(self._store.quarantined_files),
            notes=await asyncio.to_thread(self._notes),
        )

    async def FindMissingBlobs(  # noqa: N802
        self, request: deployment_pb2.FindMissingBlobsRequest, context: Context
    ) -> deployment_pb2.FindMissingBlobsResponse:
        """Says what must still be sent."""
        blobs = messages.blobs_from(request.blobs)
        missing = await asyncio.to_thread(self._store.missing, blobs)
        return deployment_pb2.FindMissingBlobsResponse(
            missing=[messages.missing_to(each) for each in missing]
        )

    async def WriteBlob(  # noqa: N802
        self, request_iterator: AsyncIterator[WriteRequest], context: Context
    ) -> deployment_pb2.WriteBlobResponse:
        """Receives the missing chunks of one blob."""
        received_bytes = await self._receiver.receive(
            request_iterator,
            accepted=lambda go_on: context.send_initial_metadata(((ACCEPTED_KEY, go_on),)),
        )
        return deployment_pb2.WriteBlobResponse(received_bytes=received_bytes)

    async def FetchBlobs(  # noqa: N802
        self, request: deployment_pb2.FetchBlobsRequest, context: Context
    ) -> AsyncIterator[deployment_pb2.FetchBlobsResponse]:
        """Fetches from the manifest's mirrors. No address is called that nobody trusted has signed."""
        verdict = await asyncio.to_thread(
            judge_admission,
            self._policy,
            self._store,
            self._deployer.state,
            request.manifest,
            request.signature,
        )
        if verdict.refusal is not None and verdict.refusal.reason != Reason.REASON_BLOB_MISSING:
            raise verdict.refusal
        # Only a board that fetches pays for the HTTP client's memory.
        from edgewright_agent.mirror import fetch_missing

        async with contextlib.aclosing(fetch_missing(self._store, verdict.manifest)) as steps:
            async for step in steps:
                yield deployment_pb2.FetchBlobsResponse(
                    fetched_bytes=step.fetched_bytes, missing_bytes=step.missing_bytes, note=step.note
                )

    async def QueryWriteStatus(  # noqa: N802
        self, request: deployment_pb2.QueryWriteStatusRequest, context: Context
    ) -> deployment_pb2.QueryWriteStatusResponse:
        """Says what of an upload is durable."""
        sha256 = messages.sha256_from(request.sha256)
        refusal = self._receiver.last_refusal(sha256)
        try:
            status = await asyncio.to_thread(self._store.write_status, sha256)
        except RefusedError:
            if refusal is None:
                raise
            status = WriteStatus(False, 0, ())  # nothing was kept, and the client wants to know why
        return deployment_pb2.QueryWriteStatusResponse(
            complete=status.complete,
            durable_bytes=status.durable_bytes,
            durable_chunks=messages.ranges_to(status.durable_chunks),
            last_refusal=messages.refusal_to(refusal),
        )

    async def StageRelease(  # noqa: N802
        self, request: deployment_pb2.StageReleaseRequest, context: Context
    ) -> deployment_pb2.StageReleaseResponse:
        """Gives the verdict, and builds the release if it is yes."""
        manifest, signature = request.manifest, request.signature
        verdict = await asyncio.to_thread(
            judge_admission, self._policy, self._store, self._deployer.state, manifest, signature
        )
        memory = self._memory(verdict)
        if verdict.refusal is not None:
            missing = [messages.sha256_to(sha256) for sha256 in verdict.missing_blobs[:_MISSING_MAX]]
            refusal = deployment_pb2.StageRefusal(memory=memory, missing_blobs=missing)
            await abort(context, verdict.refusal, refusal)
        already_staged = verdict.digest in self._store.releases()
        await asyncio.to_thread(self._store.stage, verdict.manifest, manifest, signature)
        if already_staged:
            await asyncio.to_thread(self._store.resign, verdict.digest, signature)
        await self._deployer.staged(verdict.digest)
        release = messages.sha256_to(verdict.digest)
        return deployment_pb2.StageReleaseResponse(
            release=release, memory=memory, already_staged=already_staged
        )

    async def ActivateRelease(  # noqa: N802
        self, request: deployment_pb2.ActivateReleaseRequest, context: Context
    ) -> deployment_pb2.ActivateReleaseResponse:
        """Begins to activate a release."""
        staged = self._store.releases()
        wanted = staged.get(messages.sha256_from(request.release))
        if wanted is not None:
            await asyncio.to_thread(check_activation, self._policy.trust, wanted, staged)
        await self._deployer.activate(
            messages.sha256_from(request.release),
            force=request.force,
            confirm_within_seconds=messages.confirm_seconds_from(request),
        )
        return deployment_pb2.ActivateReleaseResponse()

    async def ConfirmRelease(  # noqa: N802
        self, request: deployment_pb2.ConfirmReleaseRequest, context: Context
    ) -> deployment_pb2.ConfirmReleaseResponse:
        """Keeps the candidate that waits to be confirmed."""
        await self._deployer.confirm(messages.sha256_from(request.release))
        return deployment_pb2.ConfirmReleaseResponse()

    async def WatchDeployment(  # noqa: N802
        self, request: deployment_pb2.WatchDeploymentRequest, context: Context
    ) -> AsyncIterator[deployment_pb2.WatchDeploymentResponse]:
        """Streams the phase, and each change of it."""
        async for status in self._deployer.watch(follow=request.follow):
            yield messages.status_to(status)

    async def RollBack(  # noqa: N802
        self, request: deployment_pb2.RollBackRequest, context: Context
    ) -> deployment_pb2.RollBackResponse:
        """Begins to go back to the previous release."""
        staged = self._store.releases()
        previous = staged.get(self._deployer.state.previous or "")
        if previous is not None:
            await asyncio.to_thread(check_roll_back, self._policy.trust, previous, staged)
        release = await self._deployer.roll_back()
        return deployment_pb2.RollBackResponse(release=messages.sha256_to(release))

    async def ListReleases(  # noqa: N802
        self, request: deployment_pb2.ListReleasesRequest, context: Context
    ) -> deployment_pb2.ListReleasesResponse:
        """Lists every release on the board."""
        state, staged = self._deployer.state, self._store.releases()
        releases = [messages.release_to(staged[digest], state) for digest in sorted(staged)]
        return deployment_pb2.ListReleasesResponse(releases=releases)

    async def DeleteRelease(  # noqa: N802
        self, request: deployment_pb2.DeleteReleaseRequest, context: Context
    ) -> deployment_pb2.DeleteReleaseResponse:
        """Deletes a release."""
        freed_bytes = await self._deployer.delete(messages.sha256_from(request.release))
        return deployment_pb2.DeleteReleaseResponse(freed_bytes=freed_bytes)

    async def CollectGarbage(  # noqa: N802
        self, request: deployment_pb2.CollectGarbageRequest, context: Context
    ) -> deployment_pb2.CollectGarbageResponse:
        """Removes what no release needs."""
        garbage = await asyncio.to_thread(
            self._store.collect, dry_run=request.dry_run, quarantine=request.quarantine
        )
        return messages.garbage_to(garbage)

    async def ScrubStore(  # noqa: N802
        self, request: deployment_pb2.ScrubStoreRequest, context: Context
    ) -> AsyncIterator[deployment_pb2.ScrubStoreResponse]:
        """Verifies what is stored, in a thread. It ends when its caller leaves."""
        stop, turn = threading.Event(), threading.Lock()
        steps = scrub(self._store, bytes_per_second_max=request.bytes_per_second_max, stop=stop)
        try:
            while (step := await asyncio.to_thread(_next, turn, steps)) is not None:
                yield messages.scrubbed_to(step)
        finally:
            stop.set()
            await run_in_thread(_close, turn, steps)

    def _notes(self) -> list[str]:
        """Returns what an operator should know of the active release."""
        active = self._store.releases().get(self._deployer.state.active or "")
        return [*self._deployer.notes(), *([] if active is None else self._policy.notes(active))]

    def _memory(self, verdict: AdmissionVerdict) -> deployment_pb2.MemoryVerdict:
        prediction = verdict.manifest.memory
        return deployment_pb2.MemoryVerdict(
            predicted_peak_bytes=prediction.predicted_peak_bytes,
            prediction_error_bytes=prediction.error_bytes,
            budget_bytes=self._policy.budget_bytes,
            memory_available_bytes=verdict.memory_available_bytes,
        )


def _next(turn: threading.Lock, steps: Generator[Scrubbed, None, None]) -> Scrubbed | None:
    with turn:
        return next(steps, None)


def _close(turn: threading.Lock, steps: Generator[Scrubbed, None, None]) -> None:
    """Waits for a step that a caller has left: a generator can't be closed while it runs."""
    with turn:
        steps.close()


def _board_model() -> str:
    try:
        return Path("/proc/device-tree/model").read_text(errors="replace").rstrip("\0\n")
    except OSError:
        return ""  # not every board has a device tree

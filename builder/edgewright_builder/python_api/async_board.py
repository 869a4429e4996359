"""A board, asked and changed from asyncio. `Board` is the same for everybody else."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from edgewright.errors import BusyError, InputError, OutsideError, RefusedError
from edgewright.v1.deployment_pb2 import ScrubStoreResponse
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.device_client.backoff import Patience
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.messages import from_message
from edgewright_builder.device_client.retries import OnWait, hear_nothing
from edgewright_builder.device_client.telemetry_record import recorded
from edgewright_builder.device_client.verdict import DeploymentVerdict, watch_verdict
from edgewright_builder.push.delta_selection import DeltaSources
from edgewright_builder.push.push import PushResult, push
from edgewright_builder.push.transfer import Sent, TransferListener
from edgewright_builder.python_api.board_arguments import (
    artifact_folder,
    board_address,
    board_credentials,
    generate_request,
)
from edgewright_builder.python_api.results.board import BoardReleases, BoardStatus, releases_of, status_of
from edgewright_builder.python_api.results.generation import AsyncGeneration, ChatTurn
from edgewright_builder.python_api.results.progress import OnProgress, ProgressEmitter
from edgewright_builder.python_api.results.storage import (
    DeletedRelease,
    GarbageCollection,
    ScrubResult,
    unneeded,
)
from edgewright_builder.python_api.results.telemetry import RecordedTelemetry, TelemetrySnapshot, snapshot_of

if TYPE_CHECKING:
    from edgewright_builder.device_client.profile_draft import ProfileDraft
    from edgewright_builder.python_api.results.bench import BenchReport
    from edgewright_builder.python_api.results.calibration import BoardCalibrated
    from edgewright_builder.python_api.results.evaluation import Evaluation
    from edgewright_builder.python_api.run_folder import RunFolder

LINK_SECONDS = 90.0  # a link that broke is waited for
Prompt = "str | Sequence[ChatTurn | Mapping[str, str]]"
T = TypeVar("T")


class NotCommittedError(RefusedError):
    """The board did not keep what it was to serve. `result` has the verdict, and of a push what had been sent."""

    def __init__(self, message: str, result: PushResult | DeploymentVerdict) -> None:
        super().__init__(message)
        self.result = result


class AsyncBoard:
    """A board behind its address, `HOST:PORT`. An async context manager; every method is `Board`'s of the same name.

    It belongs to the event loop in which it is first used.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: str | Path | None = None,
        insecure: bool = False,
        on_wait: OnWait = hear_nothing,
    ) -> None:
        self._address = board_address(address)
        self._credentials = board_credentials(self._address, credentials, insecure=insecure)
        self._insecure = insecure
        self._on_wait = on_wait
        self._opened: DeviceClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def address(self) -> str:
        """Where the board's agent listens."""
        return str(self._address)

    @property
    def credentials(self) -> Path | None:
        """The credentials folder; None where none was given."""
        return self._credentials

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r}{', closed' if self._closed else ''})"

    async def __aenter__(self) -> AsyncBoard:
        self._client()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Board.close`."""
        self._closed = True
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    async def status(self) -> BoardStatus:
        """As `Board.status`."""
        client = self._client()
        return status_of(await client.get_device(), await client.list_releases())

    async def releases(self) -> BoardReleases:
        """As `Board.releases`."""
        return releases_of(await self._client().list_releases(), self.address)

    async def delete(self, digest: str) -> DeletedRelease:
        """As `Board.delete`."""
        release = (await self.releases()).named(digest)
        freed_bytes = await self._client().delete_release(bytes.fromhex(release.release))
        return DeletedRelease(release.release, release.name, release.version, freed_bytes)

    async def push(
        self,
        artifact: str | Path | Artifact | RunFolder,
        *,
        activate: bool = True,
        force: bool = False,
        probation_seconds: float = 0.0,
        delta: bool = True,
        delta_from: Iterable[str | Path] = (),
        on_progress: OnProgress | None = None,
    ) -> PushResult:
        """As `Board.push`."""
        from edgewright_builder.keys.trust_issuer import release_key

        emitter = ProgressEmitter("push", on_progress)
        result = await push(
            self._client(),
            artifact_folder(artifact),
            release_key(self._credentials),
            activate=activate,
            force=force,
            confirm_within_seconds=probation_seconds,
            listener=_listener(on_progress, emitter),
            delta_sources=DeltaSources(tuple(map(artifact_folder, delta_from))) if delta else None,
        )
        if result.verdict is not None:
            self._require_committed(result.verdict, result)
        return result

    async def rollback(self, *, on_progress: OnProgress | None = None) -> DeploymentVerdict:
        """As `Board.rollback`."""
        client, emitter = self._client(), ProgressEmitter("rollback", on_progress)
        patience = Patience(LINK_SECONDS)
        try:
            target = await client.roll_back()
        except BusyError:
            verdict = await self._change_under_way(patience, emitter)
            if not verdict.committed:
                return verdict  # the board went back by itself
            target = await client.roll_back()
        emitter.note(f"going back to {target.hex()[:12]}")
        verdict = await watch_verdict(client, target, patience, emitter.note)
        self._require_committed(verdict, verdict)
        return verdict

    async def gc(
        self, *, releases: bool = False, quarantine: bool = False, dry_run: bool = False
    ) -> GarbageCollection:
        """As `Board.gc`."""
        client, deleted = self._client(), []
        for each in unneeded((await self.releases()).releases) if releases else ():
            freed_bytes = None if dry_run else await client.delete_release(bytes.fromhex(each.release))
            deleted.append(DeletedRelease(each.release, each.name, each.version, freed_bytes))
        answer = await client.collect_garbage(dry_run=dry_run, quarantine=quarantine)
        return from_message(GarbageCollection, answer, deleted_releases=tuple(deleted), dry_run=dry_run)

    async def scrub(
        self, *, bytes_per_second_max: int = 0, on_progress: OnProgress | None = None
    ) -> ScrubResult:
        """As `Board.scrub`."""
        emitter, last = ProgressEmitter("scrub", on_progress), ScrubStoreResponse()
        async for last in self._client().scrub_store(bytes_per_second_max):
            emitter.step(last.bytes, max(last.total_bytes, 1), f"{last.blobs} files", in_bytes=True)
        if not last.done:
            raise OutsideError(f"{self.address} ended the scrub before its end; see the agent's log.")
        return from_message(ScrubResult, last)

    def generate(
        self,
        prompt: str | Sequence[ChatTurn | Mapping[str, str]],
        *,
        chat: bool = True,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> AsyncGeneration:
        """As `Board.generate`."""
        request = generate_request(
            prompt,
            chat=chat,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop=stop,
        )
        return AsyncGeneration(self._client().generate(request), self.address)

    async def score(self, items: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """As `Board.score`."""
        from edgewright_builder.device_client.board_scorer import score

        return await score(self._client(), items)

    async def telemetry(self) -> TelemetrySnapshot:
        """As `Board.telemetry`."""
        return snapshot_of(await self._client().get_snapshot(), self.address)

    async def watch_telemetry(self, interval_seconds: float = 1.0) -> AsyncGenerator[TelemetrySnapshot, None]:
        """As `Board.watch_telemetry`."""
        async for snapshot in self._client().watch_telemetry(interval_seconds):
            yield snapshot_of(snapshot, self.address)

    async def recorded_telemetry(self, after_sequence: int = 0) -> AsyncGenerator[RecordedTelemetry, None]:
        """As `Board.recorded_telemetry`."""
        async for sequence, snapshot in recorded(self._client(), after_sequence, Patience(LINK_SECONDS)):
            yield RecordedTelemetry(sequence, snapshot_of(snapshot, self.address))

    async def bench(
        self,
        *,
        prompts: int = 30,
        input_tokens: int = 128,
        output_tokens: int = 64,
        concurrency: int = 1,
        warmup: int = 2,
        repeats: int = 1,
        host_prompts: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> BenchReport:
        """As `Board.bench`."""
        from edgewright_builder.python_api.benchmarks import bench_board, load_plan

        plan = load_plan(prompts, input_tokens, output_tokens, concurrency, warmup, secrets.randbits(32))
        return await bench_board(self._client(), plan, repeats, host_prompts, on_progress)

    async def eval(
        self,
        tasks: str | Iterable[str | Path] | None = None,
        *,
        benchmarks: str | Path | None = None,
        limit: int | None = None,
        compare: str | Path | None = None,
        on_progress: OnProgress | None = None,
    ) -> Evaluation:
        """As `Board.eval`."""
        from edgewright_builder.python_api.evaluating import evaluate_board

        return await evaluate_board(self._client(), tasks, benchmarks, limit, compare, on_progress)

    async def calibrate(self, *, as_served: bool = False) -> BoardCalibrated:
        """As `Board.calibrate`."""
        from edgewright_builder.python_api.benchmarks import calibrate_board

        return await calibrate_board(self._client(), as_served=as_served)

    async def draft_profile(self) -> ProfileDraft:
        """As `Board.draft_profile`."""
        from edgewright_builder.device_client.profile_draft import draft_of

        return draft_of(await self._client().get_device(), await self._client().get_snapshot())

    def _client(self) -> DeviceClient:
        """Returns the open client. Raises InputError for a closed board, and for one of another event loop."""
        if self._closed:
            raise InputError(
                f"The board {self.address} is closed; open it again with a new Board or AsyncBoard."
            )
        running = asyncio.get_running_loop()
        if self._opened is None:
            credentials = None if self._insecure else self._credentials
            self._opened = DeviceClient(self._address, credentials, on_wait=self._on_wait)
            self._loop = running
        elif self._loop is not running:
            raise InputError(
                f"This AsyncBoard of {self.address} belongs to another event loop; open one in each."
            )
        return self._opened

    async def _change_under_way(self, patience: Patience, emitter: ProgressEmitter) -> DeploymentVerdict:
        """Waits for the end of somebody's change; returns how it ended."""
        client = self._client()
        emitter.note("another change is under way; waiting for its end")
        candidates = [each for each in await self.releases() if each.state == "candidate"]
        release = candidates[0].release if candidates else (await self.status()).active_release
        return await watch_verdict(client, bytes.fromhex(release), patience, emitter.note)

    def _require_committed(self, verdict: DeploymentVerdict, result: PushResult | DeploymentVerdict) -> None:
        if verdict.committed:
            return
        serving = (
            f"it serves {verdict.active_release[:12]}" if verdict.active_release else "it serves nothing"
        )
        raise NotCommittedError(
            f"{self.address} did not keep the release ({verdict.message}); {serving}.", result
        )


def _listener(on_progress: OnProgress | None, notes: ProgressEmitter) -> TransferListener:
    steps = ProgressEmitter("sent", on_progress)

    def sent(now: Sent) -> None:
        left_seconds = (now.total_bytes - now.bytes) / max(now.bytes_per_second, 1e-9)
        rate = f"at {now.bytes_per_second / 1e6:.1f} MB/s, {left_seconds:.0f} s left"
        steps.step(now.bytes, now.total_bytes, rate, in_bytes=True)

    return TransferListener(planned=lambda plan: notes.note(plan.line), sent=sent, note=notes.note)

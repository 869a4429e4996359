"""What happens to a board's releases: at its start, and as a host asks: activate, confirm, roll back, revoke, delete.

`activation` carries a change out and `supervision` keeps the result running, by the rules of `activation_rules`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Set

from edgewright.errors import OutsideError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment import activation_rules
from edgewright_agent.deployment.activation import Activation, ActivationSettings
from edgewright_agent.deployment.engine_manager import (
    CheckServing,
    EngineManager,
    OnServing,
    PrepareEngine,
    ServingRelease,
    StartEngine,
    nothing_to_prepare,
)
from edgewright_agent.deployment.probes import BoardSensors
from edgewright_agent.deployment.revocation import without_stopped
from edgewright_agent.deployment.state import Phase, State
from edgewright_agent.deployment.state_writer import DeploymentStatus, Rule, StateWriter
from edgewright_agent.deployment.supervision import Supervisor
from edgewright_agent.runtime.threads import run_in_thread, to_the_end
from edgewright_agent.store import Store
from edgewright_agent.store.adapter_bases import servable

_log = logging.getLogger(__name__)


class Deployer:
    """Carries out one change at a time and owns the engines. Belongs to one event loop."""

    def __init__(
        self,
        store: Store,
        start_engine: StartEngine,
        *,
        budget_bytes: int,
        probation_seconds: float = 0.0,
        restart_seconds: float = 1.0,
        on_serving: OnServing,
        senses: BoardSensors = BoardSensors(),
        check_serving: CheckServing = lambda release: None,
        prepare_engine: PrepareEngine = nothing_to_prepare,
    ) -> None:
        """`check_serving` raises RefusedError for a release that may not be served, whatever the state says."""
        self._store = store
        self._progress = StateWriter(store.state)
        self._engines = EngineManager(
            store, start_engine, on_serving, check_serving,
            prepare_engine=prepare_engine, on_preparing=self._progress.tell_preparing,
        )  # fmt: skip
        terms = ActivationSettings(budget_bytes, probation_seconds, restart_seconds, senses)
        self._activation = Activation(store, self._engines, self._progress, terms)
        self._supervisor = Supervisor(store, self._engines, self._progress, restart_seconds)
        self._changing = asyncio.Lock()
        self._stopping: Set[str] = frozenset()
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        """Returns where the board is."""
        return self._progress.state

    @property
    def status(self) -> DeploymentStatus:
        """Returns where the board is, as `watch` yields it."""
        return self._progress.status

    def serving(self) -> ServingRelease:
        """Returns the release that answers requests, and its engine.

        Raises RefusedError (`NO_ACTIVE_RELEASE`), OutsideError (`ENGINE_STARTING`).
        """
        serving = self._engines.serving  # read once: exporters ask from threads of their own
        if serving is not None:
            return serving
        refusal = self.refusal()
        if refusal is not None:
            raise RefusedError(f"No release is being served. {refusal}", Reason.REASON_NO_ACTIVE_RELEASE)
        if self.state.serves is not None and self.state.serves not in self._stopping:
            message = f"The engine of release {self.state.serves[:12]} is being restarted. Try again soon."
            raise OutsideError(message, Reason.REASON_ENGINE_STARTING)
        message = "No release is being served. Activate one, or wait for the change under way."
        raise RefusedError(message, Reason.REASON_NO_ACTIVE_RELEASE)

    def refusal(self) -> str | None:
        """Returns why the active release may not be served, as a sentence; None if it may, or there is none."""
        return self._engines.refusal(self.state.serves)

    def notes(self) -> list[str]:
        """Returns what an operator should know of the active release's engine, a sentence each."""
        refusal, restarts = self.refusal(), self._supervisor.note()
        preparing = self.status.preparing
        safe = self.state.phase is Phase.SAFE
        return [
            *(
                [f"Nothing is served: {self.state.message}. Activate a release, or roll back."]
                if safe
                else []
            ),
            *([] if refusal is None else [f"Nothing is served. {refusal}"]),
            *([f"An engine is being prepared. {preparing}."] if preparing else []),
            *([] if restarts is None else [restarts]),
        ]

    def kernels(self) -> tuple[str, ...]:
        """Returns the kernels that the serving engine says it uses; empty if nothing serves or it does not say."""
        return () if self._engines.serving is None else tuple(self._engines.serving.engine.kernels())

    async def start(self, stopped: Set[str] = frozenset()) -> None:
        """Finishes what a stopped agent left under way, then serves the active release, unless it is in `stopped`."""
        whole = servable(self._store.releases())

        def taken_up(state: State) -> State:
            return without_stopped(
                activation_rules.recovered(activation_rules.without_lost(state, whole)), whole, stopped
            )

        await self._progress.apply_or_tell(taken_up)  # on a full disk what is active serves all the same
        self._run()

    async def stop(self) -> None:
        """Stops the engine. A change under way goes on at the next start."""
        async with self._changing:
            await self._halt()
            if self._engines.serving is not None:  # it did not end by itself
                await self._progress.try_to_apply(activation_rules.steady)
            await self._engines.stop()

    async def staged(self, digest: str) -> None:
        """Notes that a release was staged and waits to be activated."""
        async with self._changing:
            await self._progress.apply(lambda state: activation_rules.staged(state, digest))

    async def activate(
        self, digest: str, *, force: bool = False, confirm_within_seconds: float = 0.0
    ) -> None:
        """Begins to activate a staged release. Raises as `activation_rules.activate`, and `RELEASE_UNKNOWN`."""
        async with self._changing:
            counter = self._store.release(digest).manifest.release_counter
            if self.state.at_rest and digest == self.state.active:
                return
            await to_the_end(
                self._change(
                    lambda state: activation_rules.activate(
                        state, digest, counter, force=force, confirm_within_seconds=confirm_within_seconds
                    )
                )
            )

    async def confirm(self, digest: str) -> None:
        """Keeps the candidate that waits for it. Raises RefusedError (`NOT_AWAITING_CONFIRMATION`)."""
        state = self.state
        if state.at_rest and digest == state.active:
            return
        if not state.awaiting_confirmation or digest != state.candidate:
            message = (
                f"Release {digest[:12]} is not waiting to be confirmed: {state.message or 'nothing is'}."
            )
            raise RefusedError(message, Reason.REASON_NOT_AWAITING_CONFIRMATION)
        self._activation.confirm()

    async def roll_back(self) -> str:
        """Begins to go back to the previous release; returns its digest. Raises as `activation_rules.roll_back`."""
        async with self._changing:
            state = await to_the_end(self._change(activation_rules.roll_back))
            return str(state.candidate)

    async def stop_revoked(self, stopped: Set[str]) -> None:
        """Stops serving and trying these releases at once. Goes back to the previous release if that may serve."""
        async with self._changing:
            if not self.state.in_use & stopped:
                return
            self._stopping = stopped
            try:
                await to_the_end(self._stop_revoked(stopped))
            finally:
                self._stopping = frozenset()

    async def _stop_revoked(self, stopped: Set[str]) -> None:
        whole = servable(self._store.releases())
        serving = self._engines.serving
        self._cancel()  # from now on nothing else is started
        if serving is not None and serving.release.digest in stopped:
            await self._engines.stop()  # at once: what is under way may read for minutes before it lets go
        await self._halt()
        await self._engines.stop()  # and what was begun; then only write, for the disk may take no writes
        await self._progress.apply_or_tell(lambda state: without_stopped(state, whole, stopped))
        self._run()

    async def found_damaged(self, damaged: Set[str]) -> None:
        """Starts what serves from one of these damaged releases again, which finds the damage and gives the release
        up.
        """
        async with self._changing:
            serves = self._store.releases().get(self.state.serves or "")
            if serves is None or not self.state.at_rest or not {serves.digest, serves.base} & damaged:
                return
            await self._halt()
            await self._engines.stop()
            self._run()

    async def delete(self, digest: str) -> int:
        """Forgets a release that is not in use; returns the bytes freed."""
        async with self._changing:
            if digest in self.state.in_use:
                message = f"Release {digest[:12]} is active, previous or on trial; it can't be deleted."
                raise RefusedError(message, Reason.REASON_RELEASE_IN_USE)
            return await to_the_end(self._delete(digest))

    async def _delete(self, digest: str) -> int:
        freed_bytes = await run_in_thread(self._store.delete_release, digest)
        await self._progress.apply(lambda state: activation_rules.forgotten(state, digest))
        return freed_bytes

    def watch(self, *, follow: bool) -> AsyncIterator[DeploymentStatus]:
        """Yields the status now, then each change. Ends at rest unless `follow`."""
        return self._progress.watch(follow=follow)

    async def _change(self, rule: Rule) -> State:
        state = await self._progress.apply(rule)  # first: the intent survives whatever comes
        self._run()
        return state

    def _run(self) -> None:
        """Replaces the task that drives the board. The new one begins when the one before has ended."""
        before = self._task
        self._cancel()
        self._task = asyncio.create_task(self._drive(before))
        self._task.add_done_callback(_report)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _halt(self) -> None:
        self._cancel()
        if self._task is not None:
            await asyncio.wait([self._task])
            self._task = None

    async def _drive(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await to_the_end(asyncio.wait([before]))
        while True:
            await self._activation.finish()
            if self.state.serves is None:
                return
            await self._supervisor.keep_serving(self.state.serves)


def _report(task: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        if task.exception() is not None:
            _log.critical("the deployer stopped", exc_info=task.exception())

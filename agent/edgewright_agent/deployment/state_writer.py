"""Writes the board's state: to the disk first, then to whoever watches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from edgewright_agent.deployment import activation_rules
from edgewright_agent.deployment.probes import ProbeResult
from edgewright_agent.deployment.state import State
from edgewright_agent.runtime.failures import log_failure
from edgewright_agent.runtime.threads import run_in_thread, to_the_end
from edgewright_agent.store import StateFile

_log = logging.getLogger(__name__)

Rule = Callable[[State], State]  # of `activation_rules`


@dataclass(frozen=True)
class DeploymentStatus:
    """One step of a change, as watchers see it."""

    state: State
    probes: tuple[ProbeResult, ...] = ()
    preparing: str = (
        ""  # what the board makes of a release for its engine, for people; "" if it makes nothing
    )


class StateWriter:
    """The only writer of the state. Belongs to one event loop."""

    def __init__(self, file: StateFile) -> None:
        self._file = file
        self._status = DeploymentStatus(_saved_state(file))
        self._writing = asyncio.Lock()
        self._watchers: set[asyncio.Queue[DeploymentStatus]] = set()

    @property
    def state(self) -> State:
        """Returns where the board is."""
        return self._status.state

    @property
    def probes(self) -> tuple[ProbeResult, ...]:
        """Returns the probes of the last trial."""
        return self._status.probes

    @property
    def status(self) -> DeploymentStatus:
        """Returns where the board is, as watchers see it."""
        return self._status

    async def apply(self, rule: Rule, probes: tuple[ProbeResult, ...] = ()) -> State:
        """Saves what the rule makes of the state, one change after another. Raises as the rule, and OutsideError."""
        async with self._writing:
            state = rule(self.state)
            if state != self.state:
                await to_the_end(self._save(state, probes))
            return state

    async def _save(self, state: State, probes: tuple[ProbeResult, ...]) -> None:
        await run_in_thread(self._file.write, state.to_json())
        _log.info("%s: %s", state.phase.value, state.message)
        self.tell(state, probes)

    async def try_to_apply(self, rule: Rule) -> bool:
        """Applies the rule; returns whether it could be saved. A full disk is no reason to stop serving."""
        try:
            await self.apply(rule)
        except Exception as error:  # noqa: BLE001
            log_failure(_log, "the state can't be written", error)
            return False
        return True

    async def apply_or_tell(self, rule: Rule) -> None:
        """Applies a rule that has to hold in any case. What could not be saved is applied again at the next start."""
        if not await self.try_to_apply(rule):
            self.tell(rule(self.state))

    def tell(self, state: State, probes: tuple[ProbeResult, ...] = ()) -> None:
        """Makes this the state from now on, even if it is not on the disk."""
        self._show(DeploymentStatus(state, probes))

    def tell_preparing(self, step: str) -> None:
        """Shows what is being prepared; "" once that has ended. Nothing of it is saved: it begins again after a cut."""
        if step != self._status.preparing:
            self._show(replace(self._status, preparing=step))

    def _show(self, status: DeploymentStatus) -> None:
        self._status = status
        for queue in self._watchers:
            queue.put_nowait(status)

    async def watch(self, *, follow: bool) -> AsyncIterator[DeploymentStatus]:
        """Yields the status now, then each change; ends at rest unless `follow`."""
        queue: asyncio.Queue[DeploymentStatus] = asyncio.Queue()
        queue.put_nowait(self._status)
        self._watchers.add(queue)
        try:
            while True:
                status = await queue.get()
                yield status
                if status.state.at_rest and not follow:
                    return
        finally:
            self._watchers.discard(queue)


def _saved_state(file: StateFile) -> State:
    saved = file.read()
    if saved is not None:
        return State.from_json(saved)
    return activation_rules.lost() if file.is_lost else State()

"""Keeps the active release's engine running: restarts it with growing pauses, until the release has to be given up."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import datetime, timezone

from edgewright_agent.deployment import activation_rules
from edgewright_agent.deployment.engine_manager import EngineManager
from edgewright_agent.deployment.state_writer import StateWriter
from edgewright_agent.engines import Death, Engine
from edgewright_agent.runtime.failures import is_named_shortage, is_rot, log_failure
from edgewright_agent.runtime.threads import within
from edgewright_agent.store import Store
from edgewright_agent.store.adapter_bases import servable

RESTART_SECONDS_MAX = 60.0  # between two starts; an engine that ran for as long is steady

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restarts:
    """A count of how often one active release's engine had to be started again."""

    digest: str = ""
    count: int = 0
    last_unix_seconds: float = 0.0
    reason: str = ""

    def after(self, death: Death) -> Restarts:
        """Returns the count after one more death."""
        return Restarts(self.digest, self.count + 1, time.time(), death.sentence)

    def sentence(self) -> str | None:
        """Returns how often and when the engine was last restarted, as a sentence; None if it never was."""
        if not self.count:
            return None
        when = datetime.fromtimestamp(self.last_unix_seconds, timezone.utc)
        times = "once" if self.count == 1 else f"{self.count} times"
        return (
            f"The engine of release {self.digest[:12]} was started again {times}, last at {when:%Y-%m-%d %H:%M:%S} "
            f"UTC: {self.reason}."
        )


class Supervisor:
    """Keeps one release running at a time, while the board is at rest."""

    def __init__(
        self, store: Store, engines: EngineManager, progress: StateWriter, restart_seconds: float
    ) -> None:
        self._store = store
        self._engines = engines
        self._progress = progress
        self._restart_seconds = restart_seconds
        self._restarts = Restarts()

    def note(self) -> str | None:
        """Returns how often the active release's engine was restarted, and why the last time, as a sentence."""
        return self._restarts.sentence()

    async def keep_serving(self, digest: str) -> None:
        """Returns when another release has to serve, or none."""
        pause_seconds = self._restart_seconds
        if self._restarts.digest != digest:
            self._restarts = Restarts(digest)
        while True:
            await self._until_trusted(digest)
            try:
                if not await self._start(digest):
                    return
                if await self._is_soon_restarted():
                    pause_seconds = self._restart_seconds
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                log_failure(_log, f"release {digest}", error)
                if is_rot(error):
                    await self._give_up(digest)
                    return
                if is_named_shortage(error):
                    await self._progress.try_to_apply(activation_rules.start_excused)
            await self._engines.stop()
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, RESTART_SECONDS_MAX)

    async def _until_trusted(self, digest: str) -> None:
        """Waits while the release is refused. Nothing is counted: it may serve again once it is trusted again."""
        while self._engines.serving is None and (refusal := self._engines.refusal(digest)) is not None:
            _log.error("%s", refusal)
            await asyncio.sleep(RESTART_SECONDS_MAX)

    async def _start(self, digest: str) -> bool:
        """Starts the release's engine unless it runs. Returns False where another release has to serve."""
        if self._engines.serving is None:
            await self._progress.try_to_apply(activation_rules.starting)
            if self._progress.state.serves != digest:
                return False
            await self._engines.serve(self._store.release(digest))
        return True

    async def _is_soon_restarted(self) -> bool:
        """Waits for the engine's death. Returns whether it had run for long, or requests are to blame for it."""
        serving = self._engines.running
        death, was_steady = await self._until_death(serving.engine)
        self._restarts = self._restarts.after(death)
        excused = serving.blames_requests(death)
        if excused:
            await self._progress.try_to_apply(activation_rules.start_excused)
        return was_steady or excused

    async def _until_death(self, engine: Engine) -> tuple[Death, bool]:
        """Returns how the engine ended, and whether it had run for long."""
        steady = False
        try:
            death = await within(RESTART_SECONDS_MAX, engine.wait())
        except asyncio.TimeoutError:
            steady = True
            await self._progress.try_to_apply(activation_rules.steady)
            death = await engine.wait()
        _log.error("the engine ended: %s; restarting it", death.sentence)
        return death, steady

    async def _give_up(self, digest: str) -> None:
        """Goes back to the previous release, if there is one: the active one is corrupt on the disk."""
        whole = servable(self._store.releases()) - {digest}
        await self._progress.apply_or_tell(lambda state: activation_rules.without_lost(state, whole))

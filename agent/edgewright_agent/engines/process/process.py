"""A supervised child process: started in its own group, read from, watched and stopped; its death is classified."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

from edgewright.die_with_parent import tethered
from edgewright_agent.engines.process.cgroup import EngineCgroup, make_engine_cgroup, why_not
from edgewright_agent.engines.process.death import ANY_PROGRAM, Death, DeathCause, LogWords, Verdict, classify
from edgewright_agent.engines.process.kills import Among, KillCounter, Kills
from edgewright_agent.engines.process.memory import EngineMemory, TreeMemory
from edgewright_agent.engines.process.memory_limit import kernel_limit_bytes, until_over
from edgewright_agent.engines.process.process_group import descendants, first_to_end, has_ended
from edgewright_agent.runtime.threads import within

LINES_KEPT = 200  # vLLM's processes print a traceback each before they end
LINE_BYTES_MAX = 2000
STOP_GRACE_SECONDS = 3.0
REAP_SECONDS = 0.005
TRACEBACK_SECONDS = 0.5  # that a hung process is given to print where it hangs
logger = logging.getLogger(__name__)


class EngineProcess:
    """One child and its process group. Make it with `spawn`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        cgroup: EngineCgroup | None = None,
        on_line: Callable[[str], None] | None = None,
        words: LogWords = ANY_PROGRAM,
    ) -> None:
        self._process = process
        self._words = words
        self._cgroup = cgroup
        self._on_line = on_line
        self._memory = TreeMemory(process.pid)
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._asked = False
        self._verdict: Verdict | None = None
        self._lost = ""
        self._watching: list[asyncio.Task[None]] = []
        self._kills = KillCounter(cgroup)
        self._reading = asyncio.create_task(self._read_output())
        self._death = asyncio.create_task(self._reap())
        self.requests_under_way = 0  # kept by whoever sends it requests; part of its death

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        memory_budget_bytes: int | None = None,
        *,
        cpus: frozenset[int] | None = None,
        on_line: Callable[[str], None] | None = None,
        words: LogWords = ANY_PROGRAM,
    ) -> EngineProcess:
        """Starts `command` so that it ends with this process, where we may under a limit of memory (`memory_limit`).

        Raises OSError if the system has no room for it; then none runs.
        It and its children run on `cpus` only; `on_line` gets each line they print; `words` are those of its log. To
        be called from a thread that lives as long as the agent: see `edgewright.die_with_parent`.
        """
        process = await asyncio.create_subprocess_exec(
            *tethered(),
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
        try:
            if cpus is not None:
                with contextlib.suppress(ProcessLookupError):  # it has ended already; its death says why
                    os.sched_setaffinity(process.pid, cpus)
            return cls(process, _limited(process.pid, memory_budget_bytes), on_line, words)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise

    @property
    def cgroup(self) -> EngineCgroup | None:
        """The control group that limits and counts its memory; None where none could be made."""
        return self._cgroup

    @property
    def pid(self) -> int:
        """The id of the child and of its process group."""
        return self._process.pid

    @property
    def death(self) -> Death | None:
        """How it ended; None while it runs."""
        return self._death.result() if self._death.done() and not self._death.cancelled() else None

    def end_when_over(self, budget_bytes: int) -> None:
        """Ends it from now on when its peak memory passes the budget, whatever the kernel allows (`memory_limit`)."""
        self._watch(self._end_when_over(budget_bytes))

    def end_when_hung(self, until_hung: Awaitable[str], traceback_signal: signal.Signals | None) -> None:
        """Ends it from now on when `until_hung` returns the reason.

        Before that it gets `traceback_signal`, upon which it prints where its threads are.
        """
        self._watch(self._end_when_hung(until_hung, traceback_signal))

    def end_with_its_processes(self) -> None:
        """Ends it from now on when one of the processes that it has started ends."""
        self._watch(self._end_when_one_ends(descendants(self.pid)))

    async def wait(self) -> Death:
        """Returns when it has ended."""
        return await asyncio.shield(self._death)

    async def stop(self) -> Death:
        """Ends the whole process group: by SIGTERM, and by SIGKILL after a grace period."""
        self._asked = self._asked or self.death is None
        self._signal(signal.SIGTERM)
        with contextlib.suppress(asyncio.TimeoutError):
            return await within(STOP_GRACE_SECONDS, self.wait())
        self._signal(signal.SIGKILL)
        return await self.wait()

    def memory(self) -> EngineMemory:
        """Returns the memory of the child and its children."""
        return self._memory.read()

    def out_of_memory_kills(self) -> Kills:
        """Returns how many processes the kernel has killed for memory since the start."""
        return self._kills.read()

    @property
    def last_lines(self) -> tuple[str, ...]:
        """What it printed last, oldest first."""
        return tuple(self._lines)

    def _signal(self, number: signal.Signals) -> None:
        if self.death is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _watch(self, watch: Awaitable[None]) -> None:
        self._watching.append(asyncio.ensure_future(watch))

    async def _end_when_over(self, budget_bytes: int) -> None:
        reason = await until_over(self._memory.read_peak_bytes, budget_bytes)
        self._verdict = Verdict(DeathCause.OVER_BUDGET, reason)
        self._signal(signal.SIGKILL)

    async def _end_when_hung(
        self, until_hung: Awaitable[str], traceback_signal: signal.Signals | None
    ) -> None:
        self._verdict = Verdict(DeathCause.HUNG, await until_hung)
        if traceback_signal is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, traceback_signal)
            await asyncio.sleep(TRACEBACK_SECONDS)
        self._signal(signal.SIGKILL)

    async def _end_when_one_ends(self, processes: Mapping[int, str]) -> None:
        lost = await first_to_end(processes)
        if not self._asked and not has_ended(self.pid):  # else the child itself took the others with it
            self._lost = lost
            self._signal(signal.SIGKILL)

    async def _exit_code(self) -> int:
        """Returns the child's own exit code as soon as it has ended.

        asyncio's `wait` waits for everybody who holds the child's output, too.
        """
        try:
            await first_to_end({self.pid: ""})
        except OSError:  # before Linux 5.3 there are no pidfds
            await self._process.wait()
        while self._process.returncode is None:  # asyncio is about to reap it
            await asyncio.sleep(REAP_SECONDS)
        return self._process.returncode

    async def _reap(self) -> Death:
        returncode = await self._exit_code()
        requests_under_way = self.requests_under_way
        for task in self._watching:
            task.cancel()
        with contextlib.suppress(ProcessLookupError):  # what the child left behind
            os.killpg(self.pid, signal.SIGKILL)
        # A child of the child in a session of its own could hold the pipe open for ever.
        await asyncio.wait({self._reading}, timeout=STOP_GRACE_SECONDS)
        kills = self._kills.read()
        death = classify(
            returncode,
            asked=self._asked,
            killed_for_memory=kills.count > 0,
            of_its_own=kills.among is Among.ENGINE,
            last_lines=tuple(self._lines),
            verdict=self._verdict,
            lost=self._lost,
            requests_under_way=requests_under_way,
            words=self._words,
        )
        if self._cgroup is not None:
            self._cgroup.remove()
        return death

    async def _read_output(self) -> None:
        """Keeps the last lines. A line without end is cut, so that no output can fill the memory."""
        assert self._process.stdout is not None
        pending = b""
        while piece := await self._process.stdout.read(4096):
            *lines, pending = (pending + piece).split(b"\n")
            if len(pending) > LINE_BYTES_MAX:
                lines, pending = [*lines, pending], b""
            for line in lines:
                self._keep(line)
        self._keep(pending)

    def _keep(self, line: bytes) -> None:
        text = line[:LINE_BYTES_MAX].decode(errors="replace").strip()
        if text:
            self._lines.append(text)
            if self._on_line is not None:
                self._on_line(text)
            logger.debug("engine %d: %s", self.pid, text)


def _limited(pid: int, budget_bytes: int | None) -> EngineCgroup | None:
    """Puts the process into a cgroup with that budget's limit; logs a warning and returns None where we may not."""
    if budget_bytes is None:
        return None
    try:
        cgroup = make_engine_cgroup(kernel_limit_bytes(budget_bytes))
    except OSError as error:
        logger.warning("the engine runs without a memory limit: %s", why_not(error))
        return None
    try:
        with contextlib.suppress(ProcessLookupError):  # it has ended already; its death says why
            cgroup.add(pid)
    except OSError as error:
        cgroup.remove()
        logger.warning("the engine runs without a memory limit: %s", why_not(error))
        return None
    return cgroup

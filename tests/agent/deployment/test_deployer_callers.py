"""A caller who leaves in the middle of a call does not leave the board half-way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import RefusedError
from edgewright_agent.deployment.state import ChangeOutcome
from edgewright_agent.store import StagedRelease
from tests.agent.deployment.test_deployer import GOOD, NEXT, activated, at_rest, deploying
from tests.support.scripted_engine import Script


class SlowDisk:
    """Holds one method of the store up, once, until it is `released`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, method: str) -> None:
        self.reached, self.released = threading.Event(), threading.Event()
        real = getattr(owner, method)

        def slow(*args: Any) -> Any:
            if not self.reached.is_set():
                self.reached.set()
                assert self.released.wait(20)
            return real(*args)

        monkeypatch.setattr(owner, method, slow)

    async def leave_during(self, call: Coroutine[Any, Any, Any]) -> None:
        """The call is cancelled, as by a deadline, while the disk is busy with it."""
        task = asyncio.create_task(call)
        await asyncio.to_thread(self.reached.wait, 20)
        task.cancel()
        await asyncio.sleep(0.01)
        self.released.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_activation_whose_caller_left_while_it_was_written_is_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deploying(tmp_path, Script()) as deployer:
        await activated(deployer, GOOD.digest)
        disk = SlowDisk(monkeypatch, deployer._store.state, "write")
        await disk.leave_during(deployer.activate(NEXT.digest))
        await at_rest(deployer)
        assert deployer.serving().release.digest == deployer.state.active == NEXT.digest


async def test_an_activation_is_accepted_at_once_while_what_serves_is_still_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a model of some GB from an SD card takes minutes, and a host waits for seconds."""
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        disk = SlowDisk(monkeypatch, deployer._store, "verify_release")
        script.running[0].die()
        await asyncio.to_thread(disk.reached.wait, 20)
        await asyncio.wait_for(deployer.activate(NEXT.digest), 10)
        assert deployer.state.candidate == NEXT.digest
        disk.released.set()
        await at_rest(deployer)
        assert deployer.serving().release.digest == NEXT.digest
        assert len(script.running) == 1


async def test_a_roll_back_whose_caller_left_is_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deploying(tmp_path, Script()) as deployer:
        await activated(deployer, GOOD.digest)
        await activated(deployer, NEXT.digest)
        disk = SlowDisk(monkeypatch, deployer._store.state, "write")
        await disk.leave_during(deployer.roll_back())
        await at_rest(deployer)
        assert deployer.state.outcome is ChangeOutcome.ROLLED_BACK
        assert deployer.serving().release.digest == GOOD.digest


async def test_a_release_whose_deletion_was_left_is_forgotten_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(refuse={NEXT.digest})
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        await activated(deployer, NEXT.digest)
        assert NEXT.digest in deployer.state.denied
        disk = SlowDisk(monkeypatch, deployer._store, "delete_release")
        await disk.leave_during(deployer.delete(NEXT.digest))
        assert NEXT.digest not in deployer._store.releases()
        assert NEXT.digest not in deployer.state.denied


async def test_a_withdrawal_whose_caller_left_stops_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        await activated(deployer, NEXT.digest)
        disk = SlowDisk(monkeypatch, deployer._store.state, "write")
        await disk.leave_during(deployer.stop_revoked({NEXT.digest}))
        await at_rest(deployer)
        assert deployer.serving().release.digest == GOOD.digest
        assert [engine.release.digest for engine in script.running] == [GOOD.digest]


async def until(is_so: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while not is_so():
        assert asyncio.get_running_loop().time() < deadline, "it never came"
        await asyncio.sleep(0.001)


async def test_a_revoked_release_stops_at_once_while_a_candidate_is_still_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of some GB is read from an SD card for minutes, and a thread that reads can't be stopped."""
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        disk = SlowDisk(monkeypatch, deployer._store, "verify_release")
        await deployer.activate(NEXT.digest)
        await asyncio.to_thread(disk.reached.wait, 20)
        stopping = asyncio.create_task(deployer.stop_revoked({GOOD.digest}))
        await until(lambda: script.running == [])
        with pytest.raises(RefusedError, match="No release is being served"):
            deployer.serving()
        disk.released.set()
        await stopping
        await at_rest(deployer)
        assert deployer.serving().release.digest == NEXT.digest
        assert [engine.release.digest for engine in script.engines] == [GOOD.digest, NEXT.digest]


async def test_a_revoked_candidate_that_is_still_being_read_leaves_what_serves_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deploying(tmp_path, Script()) as deployer:
        await activated(deployer, GOOD.digest)
        disk = SlowDisk(monkeypatch, deployer._store, "verify_release")
        await deployer.activate(NEXT.digest)
        await asyncio.to_thread(disk.reached.wait, 20)
        stopping = asyncio.create_task(deployer.stop_revoked({NEXT.digest}))
        for _ in range(100):
            await asyncio.sleep(0)
        assert deployer.serving().release.digest == GOOD.digest
        disk.released.set()
        await stopping
        assert deployer.state.active == GOOD.digest
        assert deployer.state.candidate is None


async def test_callers_do_not_hear_that_a_revoked_release_is_being_restarted(tmp_path: Path) -> None:
    stopping, ended = asyncio.Event(), asyncio.Event()

    async def slow_to_end(what: str, release: StagedRelease) -> None:
        if what == "stop":
            stopping.set()
            await ended.wait()

    script = Script(before=slow_to_end)
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        revoking = asyncio.create_task(deployer.stop_revoked({GOOD.digest}))
        await asyncio.wait_for(stopping.wait(), 10)
        with pytest.raises(RefusedError, match="No release is being served"):
            deployer.serving()
        ended.set()
        await revoking


async def test_a_board_stops_in_order_while_a_change_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        disk = SlowDisk(monkeypatch, deployer._store.state, "write")
        activating = asyncio.create_task(deployer.activate(NEXT.digest))
        await asyncio.to_thread(disk.reached.wait, 20)
        stopping = asyncio.create_task(deployer.stop())
        await asyncio.sleep(0.01)
        disk.released.set()
        await asyncio.gather(activating, stopping)
        assert script.running == []
        with pytest.raises(RefusedError, match="being served"):
            deployer.serving()

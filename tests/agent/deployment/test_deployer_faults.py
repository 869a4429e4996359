"""What a board does when its disk rots or fails, and when nobody confirms what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from edgewright import durable
from edgewright.durable import FileSystem
from edgewright.errors import EdgewrightError, OutsideError
from edgewright_agent.deployment import supervision
from edgewright_agent.deployment.activation_rules import STARTS_MAX
from edgewright_agent.deployment.deployer import Deployer
from edgewright_agent.deployment.probes import BoardSensors
from edgewright_agent.deployment.state import ChangeOutcome, Phase, State
from edgewright_agent.engines.process.kills import Among, Kills
from edgewright_agent.store import Space, StagedRelease, StateFile, Store
from tests.agent.deployment.test_deployer import GOOD, NEXT, activated, at_rest, deploying
from tests.support.artifacts import make_artifact, stage
from tests.support.scripted_engine import Script

OTHER = make_artifact(
    {"engine/model.bin": b"other " * 300, "tokenizer/tokenizer.json": b"{3}"}, version="3.0"
)


def rot(root: Path, digest: str) -> None:
    path = root / "releases" / digest / "tree" / "tokenizer" / "tokenizer.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"!")


async def test_an_active_release_that_rotted_while_the_board_was_off_is_not_served(tmp_path: Path) -> None:
    async with deploying(tmp_path, Script()) as deployer:
        await activated(deployer, GOOD.digest)
    rot(tmp_path, GOOD.digest)
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        while deployer.state.active is not None:
            await asyncio.sleep(0.005)
        assert script.engines == []
        assert "is lost" in deployer.state.message


async def test_a_candidate_that_rotted_on_the_disk_is_not_denied_and_needs_no_force_once_pushed_again(
    tmp_path: Path,
) -> None:
    async with deploying(tmp_path, Script()) as deployer:
        await activated(deployer, GOOD.digest)
        stage(deployer._store, OTHER)
        rot(tmp_path, OTHER.digest)
        engine = deployer.serving().engine
        steps = await activated(deployer, OTHER.digest)
        assert deployer.serving().engine is engine  # what serves is not stopped for what can't be read
        assert any("Push it again" in step.state.message for step in steps)
        assert max(step.state.attempts for step in steps) == 1
        assert deployer.state.outcome is ChangeOutcome.ROLLED_BACK
        assert deployer.serving().release.digest == GOOD.digest
        assert deployer.state.denied == ()
        stage(deployer._store, OTHER)
        await activated(deployer, OTHER.digest)
        assert deployer.serving().release.digest == OTHER.digest


async def test_where_the_active_release_rotted_a_failed_candidate_gives_way_to_the_previous_one(
    tmp_path: Path,
) -> None:
    script = Script(refuse={NEXT.digest})
    async with deploying(tmp_path, script) as deployer:
        stage(deployer._store, OTHER)
        await activated(deployer, GOOD.digest)
        await activated(deployer, OTHER.digest)
        rot(tmp_path, OTHER.digest)
        await activated(deployer, NEXT.digest)
        assert deployer.state.outcome is ChangeOutcome.ROLLED_BACK
        assert deployer.serving().release.digest == deployer.state.active == GOOD.digest


async def test_a_candidate_nobody_confirms_in_time_rolls_back_and_may_come_again(tmp_path: Path) -> None:
    async with deploying(tmp_path, Script()) as deployer:
        await activated(deployer, GOOD.digest)
        await deployer.activate(NEXT.digest, confirm_within_seconds=0.05)
        steps = await at_rest(deployer)
        assert any(step.state.awaiting_confirmation for step in steps)
        assert deployer.state.outcome is ChangeOutcome.ROLLED_BACK
        assert deployer.serving().release.digest == GOOD.digest
        assert NEXT.digest not in deployer.state.denied


async def test_a_confirmed_candidate_stays(tmp_path: Path) -> None:
    async with deploying(tmp_path, Script()) as deployer:
        await deployer.activate(GOOD.digest, confirm_within_seconds=30)
        while not deployer.state.awaiting_confirmation:
            await asyncio.sleep(0.005)
        await deployer.confirm(GOOD.digest)
        await at_rest(deployer)
        assert deployer.state.outcome is ChangeOutcome.COMMITTED


async def test_an_engine_that_ran_out_of_memory_while_it_answers_rolls_back(tmp_path: Path) -> None:
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        script.lines = ("NvMapMemAllocInternalTagged: error 12",)
        steps = await activated(deployer, NEXT.digest)
        failed = {probe.name for step in steps for probe in step.probes if not probe.passed}
        assert failed == {"no_out_of_memory"}
        assert deployer.state.active == GOOD.digest


@pytest.mark.parametrize("among", Among)
async def test_a_candidate_whose_trial_had_a_process_killed_for_memory_rolls_back_and_says_where(
    tmp_path: Path, among: Among
) -> None:
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        script.kills = Kills(1, among)
        steps = await activated(deployer, NEXT.digest)
        (detail,) = {probe.detail for step in steps for probe in step.probes if not probe.passed}
        assert "killed 1 processes for memory" in detail
        assert f"counted among {among.value}" in detail
        assert deployer.state.active == GOOD.digest


class DiskWithoutRoom(FileSystem):
    """Full as long as `is_full`."""

    is_full = False

    def create(self, path: Path) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().create(path)


async def test_a_full_disk_stops_a_change_not_the_serving_and_the_change_goes_on_later(
    tmp_path: Path,
) -> None:
    disk = DiskWithoutRoom()
    async with deploying(tmp_path, Script(), senses=BoardSensors(available_bytes=lambda: 0)) as deployer:
        await activated(deployer, GOOD.digest)
        deployer._store.state._fs = disk
        await deployer.activate(NEXT.digest)
        disk.is_full = True
        for _ in range(40):
            await asyncio.sleep(0.005)
        assert deployer.serving().release.digest in (GOOD.digest, NEXT.digest)
        disk.is_full = False
        await at_rest(deployer)
        assert deployer.state.phase is Phase.IDLE
        assert deployer.serving().release.digest == deployer.state.active


async def test_a_change_taken_up_on_a_full_disk_waits_and_what_is_active_serves_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power went during a change, and came back to a disk without room."""
    disk = DiskWithoutRoom()
    async with deploying(tmp_path, Script()) as deployer:
        await activated(deployer, GOOD.digest)
        await deployer.activate(NEXT.digest)
    disk.is_full = True
    monkeypatch.setattr(StateFile, "__init__", with_disk(StateFile.__init__, disk))
    async with deploying(tmp_path, Script()) as deployer:
        while not serves(deployer, GOOD.digest):
            await asyncio.sleep(0.005)
        assert deployer.state.candidate == NEXT.digest
        disk.is_full = False
        await at_rest(deployer)
        assert serves(deployer, NEXT.digest)


async def test_where_the_active_release_is_lost_the_previous_one_serves_while_the_change_waits_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = State(phase=Phase.ACTIVATING, active="e" * 64, previous=GOOD.digest, candidate=NEXT.digest)
    async with deploying(tmp_path, Script()) as deployer:
        deployer._store.state.write(change.to_json())
    disk = DiskWithoutRoom()
    disk.is_full = True
    monkeypatch.setattr(StateFile, "__init__", with_disk(StateFile.__init__, disk))
    async with deploying(tmp_path, Script()) as deployer:
        while not serves(deployer, GOOD.digest):
            await asyncio.sleep(0.005)
        assert deployer.state.candidate == NEXT.digest
        disk.is_full = False
        await at_rest(deployer)
        assert serves(deployer, NEXT.digest)


def with_disk(init: Any, disk: FileSystem) -> Any:
    def made(file: StateFile, fs: FileSystem, path: Path) -> None:
        init(file, disk, path)

    return made


def serves(deployer: Deployer, digest: str) -> bool:
    try:
        return deployer.serving().release.digest == digest
    except EdgewrightError:
        return False


async def test_an_engine_that_runs_for_long_on_a_full_disk_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "RESTART_SECONDS_MAX", 0.05)
    script, disk = Script(), DiskWithoutRoom()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        deployer._store.state._fs = disk

        async def run_full(what: str, release: StagedRelease) -> None:
            disk.is_full = disk.is_full or what == "start"

        script.before = run_full
        script.running[0].die()  # the start that follows is counted, so a steady engine is something to write
        while len(script.engines) < 2:
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.3)
        assert len(script.engines) == 2
        assert serves(deployer, GOOD.digest)


async def test_a_revoked_release_stops_although_the_disk_takes_no_writes(tmp_path: Path) -> None:
    script, disk = Script(), DiskWithoutRoom()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        deployer._store.state._fs = disk
        disk.is_full = True
        await deployer.stop_revoked({GOOD.digest})
        assert script.running == []
        assert not serves(deployer, GOOD.digest)
        disk.is_full = False


async def test_a_board_without_file_handles_denies_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deploying(tmp_path, Script()) as deployer:
        await activated(deployer, GOOD.digest)
        with monkeypatch.context() as patch:
            patch.setattr(deployer._store.fs, "sha256_of", out_of_handles)
            steps = await activated(deployer, NEXT.digest)
            assert any("Too many open files" in step.state.message for step in steps)
        assert deployer.state.denied == ()
        while not serves(deployer, GOOD.digest):
            await asyncio.sleep(0.005)
        await activated(deployer, NEXT.digest)
        assert serves(deployer, NEXT.digest)


async def test_a_good_release_is_not_given_up_for_what_the_board_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "RESTART_SECONDS_MAX", 0.01)
    async with deploying(tmp_path, Script()) as deployer:
        await activated(deployer, GOOD.digest)
        await activated(deployer, NEXT.digest)
    short, script, tried = [errno.ENOMEM, errno.EAGAIN] * STARTS_MAX, Script(), set()

    async def lack(what: str, release: StagedRelease) -> None:
        tried.add(release.digest)
        if what == "start" and short:
            error = short.pop()
            raise OSError(error, os.strerror(error))

    script.before = lack
    async with deploying(tmp_path, script) as deployer:
        while not script.running:
            await asyncio.sleep(0.005)
        assert not short
        assert tried == {NEXT.digest}
        assert deployer.state.active == NEXT.digest


def out_of_handles(path: Path, flags: int = 0) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_a_candidate_lost_in_a_power_cut_needs_no_force_once_pushed_again(tmp_path: Path) -> None:
    async with deploying(tmp_path, Script()) as deployer:
        await activated(deployer, GOOD.digest)
        stage(deployer._store, OTHER)
        await deployer.activate(OTHER.digest)
    (tmp_path / "releases" / OTHER.digest / "manifest.sig").write_bytes(b"torn")
    async with deploying(tmp_path, Script()) as deployer:
        await at_rest(deployer)
        assert serves(deployer, GOOD.digest)
        assert deployer.state.denied == ()
        stage(deployer._store, OTHER)
        await activated(deployer, OTHER.digest)
        assert serves(deployer, OTHER.digest)


def test_a_start_without_file_handles_takes_nothing_for_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened() -> Store:
        return Store(tmp_path, space=Space(reserve_bytes=0))

    with contextlib.closing(opened()) as store:
        stage(store, GOOD)
        store.state.write({"phase": "idle"})
    with monkeypatch.context() as patch:
        patch.setattr(durable, "_open_regular", out_of_handles)
        with pytest.raises(OutsideError, match="Too many open files"):
            opened()
    with contextlib.closing(opened()) as store:
        assert set(store.releases()) == {GOOD.digest}
        with monkeypatch.context() as patch:
            patch.setattr(durable, "_open_regular", out_of_handles)
            with pytest.raises(OutsideError, match="Too many open files"):
                store.state.read()
        assert store.state.read() == {"phase": "idle"}

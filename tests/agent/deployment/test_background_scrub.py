"""The store is read in the background: slowly, out of the way, on from where it was; and rot has consequences."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright.durable import FileSystem, Pace
from edgewright_agent.server import RunningAgent, run_agent
from edgewright_agent.store import Space, Store
from edgewright_agent.store import background_scrub as scrub_module
from edgewright_agent.store.background_scrub import BackgroundScrub, BackgroundScrubSettings
from tests.agent.conftest import settings_for
from tests.agent.store.test_uploads import flip_a_bit
from tests.support.artifacts import TestArtifact, make_artifact, put_blob, stage
from tests.support.scripted_engine import TOKENS, Script, only_fake

FAST = 2**40
GOLDEN = {"prompt": "p", "tokens": list(TOKENS)}
OLD = make_artifact({"engine/model.bin": b"old" * 9000}, version="1", golden=GOLDEN)
NEW = make_artifact({"engine/model.bin": b"new" * 9000}, version="2", golden=GOLDEN)
BLOBS = [random.Random(number).randbytes(3000) for number in range(6)]


class CountingReads(FileSystem):
    def __init__(self) -> None:
        self.read: list[str] = []
        self.when_begun: dict[int, Callable[[], None]] = {}  # by how many reads have begun

    def sha256_on_disk(self, path: Path, pace: Pace) -> str:
        self.read.append(path.name)
        self.when_begun.get(len(self.read), lambda: None)()
        return super().sha256_on_disk(path, pace)


class Rounds:
    """A scrub in a thread, over a store of six blobs."""

    def __init__(self, root: Path, *, interval_seconds: float = 1e-6, bytes_per_second: int = FAST) -> None:
        self.fs = CountingReads()
        self.store = Store(root, space=Space(reserve_bytes=0), fs=self.fs)
        self.digests = sorted(put_blob(self.store, data).sha256 for data in BLOBS)
        self.busy = False
        self.found: list[frozenset[str]] = []
        self.stopped = threading.Event()
        settings = BackgroundScrubSettings(interval_seconds, bytes_per_second)
        self.scrub = BackgroundScrub(self.store, settings, is_busy=lambda: self.busy, found=self.found.append)
        self._thread = threading.Thread(target=self.scrub.run, args=(self.stopped,))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.stopped.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.store.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_every_blob_is_read_round_after_round(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path)
    rounds.start()
    until(lambda: len(rounds.fs.read) >= 12)
    rounds.stop()
    assert rounds.fs.read[:12] == 2 * rounds.digests


def test_rot_is_put_in_quarantine_and_told_with_the_releases_it_damages(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path)
    stage(rounds.store, OLD)
    blob = OLD.blobs[0].sha256
    flip_a_bit(rounds.store.layout.blob(blob), 5000)
    rounds.start()
    until(lambda: bool(rounds.found))
    rounds.stop()
    assert rounds.found[0] == {OLD.digest}
    assert blob not in rounds.store.blob_bytes()
    assert [path.name[:64] for path in rounds.store.layout.quarantine.iterdir()] == [blob]
    assert rounds.store.traffic.corrupt == 1


def test_after_a_restart_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub_module, "RECORD_SECONDS", 0.0)
    first = Rounds(tmp_path)
    first.fs.when_begun[3] = first.stopped.set
    first.start()
    assert first.stopped.wait(20)
    first.stop()
    assert first.fs.read == first.digests[:3]
    second = Rounds(tmp_path, interval_seconds=1e6)
    second.start()
    until(lambda: len(second.fs.read) >= 4)
    second.stop()
    assert second.fs.read == second.digests[2:]  # the one it was in the middle of is read again


def test_it_waits_while_the_board_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub_module, "BUSY_SECONDS", 0.01)
    rounds = Rounds(tmp_path)
    rounds.busy = True
    rounds.start()
    until(lambda: len(rounds.fs.read) == 1)
    time.sleep(0.3)
    assert len(rounds.fs.read) == 1  # begun, and not gone on with
    rounds.busy = False
    until(lambda: len(rounds.fs.read) >= 6)
    rounds.stop()


def test_it_reads_no_faster_than_it_may(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, bytes_per_second=60_000)
    began = time.monotonic()
    rounds.start()
    until(lambda: len(rounds.fs.read) >= 7)
    seconds = time.monotonic() - began
    rounds.stop()
    assert seconds >= 6 * 3000 / 60_000


def test_a_round_begins_when_the_interval_is_over_and_not_before(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, interval_seconds=3600.0)  # a new store has just been verified
    rounds.start()
    time.sleep(0.3)
    rounds.stop()
    assert rounds.fs.read == []


def scrub_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "scrub"]


async def test_an_interval_of_0_is_no_scrub_at_all(tmp_path: Path) -> None:
    for interval_seconds, threads in ((0.0, 0), (3600.0, 1)):
        settings = settings_for(tmp_path / "store", scrub=BackgroundScrubSettings(interval_seconds))
        async with run_agent(settings, available_engines=only_fake, start_engine=Script().start):
            assert len(scrub_threads()) == threads
    assert scrub_threads() == []


async def serve_both(agent: RunningAgent) -> None:
    """OLD, then NEW on top of it."""
    for artifact in (OLD, NEW):
        await asyncio.to_thread(stage, agent.store, artifact)
        await agent.deployer.activate(artifact.digest)
        async for _ in agent.deployer.watch(follow=False):
            pass
    assert agent.deployer.state.active == NEW.digest


async def serves(agent: RunningAgent, digest: str) -> None:
    """Returns when the rot was found and this release is active, and at rest."""
    state = agent.deployer.state
    while not agent.store.traffic.corrupt or not state.at_rest or state.active != digest:
        await asyncio.sleep(0.01)
        state = agent.deployer.state


@pytest.mark.parametrize("rotten", [NEW, OLD], ids=["active", "previous"])
async def test_a_bit_that_flips_under_a_running_agent_is_found_and_an_active_release_gives_way(
    tmp_path: Path, rotten: TestArtifact
) -> None:
    settings = settings_for(tmp_path / "store", scrub=BackgroundScrubSettings(1e-3, FAST))
    async with run_agent(settings, available_engines=only_fake, start_engine=Script().start) as agent:
        await serve_both(agent)
        flip_a_bit(agent.store.layout.blob(rotten.blobs[0].sha256), 7000)
        left = OLD if rotten is NEW else NEW
        await asyncio.wait_for(serves(agent, left.digest), 30)
        assert agent.deployer.serving().release.digest == left.digest
        assert agent.store.traffic.corrupt == 1
        assert agent.store.quarantined_files() == 1

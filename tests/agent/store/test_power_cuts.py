"""A power cut after any operation of an update: what the board finds afterwards is old or new, whole."""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright.errors import EdgewrightError
from edgewright_agent.deployment import activation_rules
from edgewright_agent.deployment.deployer import Deployer
from edgewright_agent.deployment.engine_manager import ServingRelease
from edgewright_agent.deployment.state import State
from edgewright_agent.store import Space, Store
from edgewright_agent.store.blobs import direct_io as direct
from edgewright_agent.store.blobs.blob import from_ranges
from tests.support.artifacts import TestArtifact, make_artifact, put_blob
from tests.support.faulty_fs import Disk, RecordingFileSystem
from tests.support.scripted_engine import TOKENS, Script

POINTS_MIN = 2000
CHUNK_BYTES = 9000  # the pages within go past the cache, the edges through it
GOLDEN = {"prompt": "p", "tokens": list(TOKENS)}
OLD = make_artifact({"engine/model.bin": b"old " * 5000, "t/tok.json": b"{}"}, version="1", golden=GOLDEN)
NEW = make_artifact({"engine/model.bin": b"new " * 5100, "t/tok.json": b"{}"}, version="2", golden=GOLDEN)
VARIANTS = (
    ("lost", "lost"),
    ("kept", "kept"),  # the agent was killed, the board was not
    ("kept", "lost"),
    ("lost", "kept"),
    *4 * (("kept", "torn"), ("torn", "lost"), ("torn", "torn")),  # each time torn elsewhere
)


async def nobody_listens(serving: ServingRelease | None) -> None:
    """Nothing follows what is served."""


async def updates(root: Path) -> tuple[RecordingFileSystem, list[tuple[int, str]]]:
    """Pushes and activates OLD, then NEW, goes back, deletes NEW and collects; all recorded.

    With it, which release was active from which operation on.
    """
    root.mkdir()
    fs = RecordingFileSystem(root)
    store = Store(root, space=Space(reserve_bytes=0), fs=fs)
    deployer = Deployer(store, Script().start, budget_bytes=10_000, on_serving=nobody_listens)
    await deployer.start()
    active = []
    for artifact in (OLD, NEW):
        for data in artifact.contents.values():
            put_blob(store, data, CHUNK_BYTES)
        store.stage(artifact.manifest, artifact.manifest_bytes, artifact.envelope)
        await deployer.staged(artifact.digest)
        await deployer.activate(artifact.digest)
        assert [status async for status in deployer.watch(follow=False)][-1].state.active == artifact.digest
        active.append((len(fs.operations), artifact.digest))
    await deployer.roll_back()
    assert [status async for status in deployer.watch(follow=False)][-1].state.active == OLD.digest
    active.append((len(fs.operations), OLD.digest))
    store.delete_release(NEW.digest)
    store.collect()
    await deployer.stop()
    store.close()
    return fs, active


def images(
    operations: list[tuple[object, ...]], chance: random.Random
) -> Iterator[tuple[int, dict[tuple[str, ...], bytes | None]]]:
    """Every disk that a cut after each operation may leave."""
    disk = Disk()
    for count, operation in enumerate(operations, 1):
        disk.apply(operation)
        for names, data in VARIANTS:
            yield count, disk.image(names=names, data=data, chance=chance)


def lay_out(root: Path, image: dict[tuple[str, ...], bytes | None]) -> None:
    root.mkdir()
    for path, data in sorted(image.items()):
        target = root.joinpath(*path)
        if data is None:
            target.mkdir()
        else:
            target.write_bytes(data)


def check_recovered(root: Path, allowed: set[str | None]) -> None:
    """Recovery needs no help, loses nothing that was committed, and shows nothing that is not whole."""
    store = Store(root, space=Space(reserve_bytes=0))
    try:
        releases, saved = store.releases(), store.state.read()
        assert not store.state.is_lost
        state = State() if saved is None else State.from_json(saved)
        assert activation_rules.without_lost(state, set(releases)).active == state.active, (
            "the active one was lost"
        )
        assert state.active in allowed
        for artifact in (OLD, NEW):
            check_whole(store, artifact)
        for sha256 in store.blob_bytes():
            store.verify_blob(sha256)
        assert list((root / "quarantine").iterdir()) == []
        check_uploads(store)
    finally:
        store.close()


def check_whole(store: Store, artifact: TestArtifact) -> None:
    release = store.releases().get(artifact.digest)
    if release is not None:
        for file in artifact.manifest.files:
            assert (release.tree / file.path).read_bytes() == artifact.contents[file.sha256]


def check_uploads(store: Store) -> None:
    """What is reported durable is there: a host never sends it again."""
    for path in store.layout.partial.glob("*.data"):
        data = {**OLD.contents, **NEW.contents}[path.stem]
        found = path.read_bytes()
        for chunk in from_ranges(store.write_status(path.stem).durable_chunks):
            place = slice(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES)
            assert found[place] == data[place]


def fingerprint(image: dict[tuple[str, ...], bytes | None], allowed: set[str | None]) -> bytes:
    return hashlib.sha256(repr((sorted(image.items()), sorted(map(str, allowed)))).encode()).digest()


@pytest.fixture(autouse=True)
def _every_page_goes_past_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "DIRECT_BYTES_MIN", direct.PAGE_BYTES)


def written_past_the_cache(operations: list[tuple[object, ...]]) -> int:
    """Bytes written through a second handle to an upload's file."""
    handles = {each[2] for each in operations if each[0] == "open" and each[1][0] == "partial"}  # type: ignore[index]
    return sum(len(each[3]) for each in operations if each[0] == "write" and each[1] in handles)  # type: ignore[arg-type, misc]


async def test_a_power_cut_after_any_operation_leaves_old_or_new_whole(tmp_path: Path) -> None:
    fs, active = await updates(tmp_path / "live")
    assert written_past_the_cache(fs.operations) >= 4 * direct.PAGE_BYTES
    points, disks = check_every_cut(tmp_path, fs.operations, active)
    print(f"{len(fs.operations)} operations, {points} points, {disks} different disks")  # noqa: T201
    assert points >= POINTS_MIN


@pytest.mark.parametrize("forgotten", ["sync", "sync_folder"])
async def test_the_cuts_would_notice_a_store_that_forgets_to_sync(tmp_path: Path, forgotten: str) -> None:
    fs, active = await updates(tmp_path / "live")
    operations = [("nothing",) if each[0] == forgotten else each for each in fs.operations]
    with pytest.raises((AssertionError, EdgewrightError)):
        check_every_cut(tmp_path, operations, active)


def check_every_cut(
    folder: Path, operations: list[tuple[object, ...]], active: list[tuple[int, str]]
) -> tuple[int, int]:
    """How many cuts were tried, and how many disks they left that differ."""
    memory = Path("/dev/shm")
    scratch = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else folder))
    points, seen = 0, set()
    try:
        for count, image in images(operations, random.Random(5)):
            allowed = allowed_at(count, active)
            points += 1
            key = fingerprint(image, allowed)
            if key not in seen:
                seen.add(key)
                lay_out(scratch / "disk", image)
                check_recovered(scratch / "disk", allowed)
                shutil.rmtree(scratch / "disk")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return points, len(seen)


def allowed_at(count: int, active: list[tuple[int, str]]) -> set[str | None]:
    """Active before the change under way, and after it."""
    before: str | None = None
    for end, digest in active:
        if count < end:
            return {before, digest}
        before = digest
    return {before}

"""What the store promises of releases, garbage, recovery and its own files."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.durable import TEMPORARY_PREFIX, FileSystem, write_durably
from edgewright.errors import InputError, OutsideError, RefusedError
from edgewright.manifest import parse_manifest
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.store import Space, StateFile, Store
from edgewright_agent.store.files.version import version_line
from edgewright_agent.store.upkeep.garbage import PROTECTED_SECONDS
from tests.agent.store.test_uploads import flip_a_bit
from tests.support.artifacts import TREE, make_artifact, make_blob, put_blob, stage

OTHER_TREE = {**TREE, "engine/model.bin": b"other weights" * 3000}


class FakeTime:
    """A clock that is set."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def open_store(root: Path, **options: Any) -> Store:
    return Store(root, space=Space(reserve_bytes=0), **options)


def test_a_staged_release_is_links_to_its_blobs(tmp_path: Path) -> None:
    store, artifact = open_store(tmp_path), make_artifact()
    stage(store, artifact)
    release = store.release(artifact.digest)
    assert {path: (release.tree / path).read_bytes() for path in TREE} == TREE
    assert all((release.tree / path).stat().st_nlink == 2 for path in TREE)
    assert (release.folder / "manifest.json").read_bytes() == artifact.manifest_bytes
    assert (release.folder / "manifest.sig").read_bytes() == artifact.envelope


def test_a_flipped_bit_is_found_when_staging_and_the_blob_can_be_sent_again(tmp_path: Path) -> None:
    store, artifact = open_store(tmp_path), make_artifact()
    for data in artifact.contents.values():
        put_blob(store, data)
    sha256 = artifact.manifest.files[0].sha256
    path = tmp_path / "blobs" / "sha256" / sha256[:2] / sha256
    rotten = bytearray(path.read_bytes())
    rotten[len(rotten) // 2] ^= 4
    path.chmod(0o644)
    path.write_bytes(rotten)
    with pytest.raises(OutsideError) as error:
        store.stage(artifact.manifest, artifact.manifest_bytes, artifact.envelope)
    assert error.value.reason == Reason.REASON_STORE_CORRUPT
    assert store.releases() == {}
    assert store.absent_blobs(artifact.manifest) == [sha256]
    assert len(list((tmp_path / "quarantine").iterdir())) == 1
    stage(store, artifact)
    assert store.release(artifact.digest).tree.is_dir()


def test_a_blob_sent_again_heals_the_releases_that_hold_it(tmp_path: Path) -> None:
    store, artifact = open_store(tmp_path), make_artifact()
    stage(store, artifact)
    path = store.release(artifact.digest).tree / "engine/model.bin"
    path.chmod(0o644)
    path.write_bytes(b"rot" + path.read_bytes()[3:])
    with pytest.raises(OutsideError):
        store.verify(artifact.manifest)
    for data in artifact.contents.values():
        put_blob(store, data, 4096)
    store.verify(artifact.manifest)
    assert path.read_bytes() == TREE["engine/model.bin"]


def test_releases_and_blobs_are_found_again_at_the_next_start(tmp_path: Path) -> None:
    store, artifact = open_store(tmp_path), make_artifact()
    stage(store, artifact)
    store.close()
    again = open_store(tmp_path)
    assert set(again.releases()) == {artifact.digest}
    assert again.missing(artifact.blobs) == []


def test_deleting_a_release_frees_only_what_no_other_needs(tmp_path: Path) -> None:
    clock = FakeTime()
    store = open_store(tmp_path, clock=clock)
    first, second = make_artifact(), make_artifact(OTHER_TREE, version="2.0")
    stage(store, first)
    stage(store, second)
    clock.seconds = PROTECTED_SECONDS
    assert store.delete_release(first.digest) == len(TREE["engine/model.bin"])
    assert set(store.releases()) == {second.digest}
    assert store.absent_blobs(second.manifest) == []
    with pytest.raises(RefusedError) as error:
        store.release(first.digest)
    assert error.value.reason == Reason.REASON_RELEASE_UNKNOWN


def test_deleting_a_release_frees_its_blobs_at_once(tmp_path: Path) -> None:
    store, artifact = open_store(tmp_path), make_artifact()
    stage(store, artifact)
    store.close()
    again = open_store(tmp_path)
    sizes = {file.sha256: file.size_bytes for file in artifact.manifest.files}
    assert again.delete_release(artifact.digest) == sum(sizes.values())
    stage(again, artifact)
    assert again.delete_release(artifact.digest) == sum(sizes.values())


def test_an_upload_published_meanwhile_does_not_disturb_the_count_of_free_bytes(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    (tmp_path / "partial" / f"{'a' * 64}.data").symlink_to("gone")  # listed, and gone when looked at
    assert store.collect().freed_bytes == 0
    store.close()
    limited = Store(tmp_path / "limited", space=Space(quota_bytes=1000, reserve_bytes=0))
    (tmp_path / "limited" / "partial" / f"{'a' * 64}.data").symlink_to("gone")
    assert limited.free_bytes() == 1000


def test_a_rotten_blob_in_quarantine_counts_though_its_release_still_links_to_it(tmp_path: Path) -> None:
    store, artifact = Store(tmp_path, space=Space(quota_bytes=50_000, reserve_bytes=0)), make_artifact()
    stage(store, artifact)
    free_bytes = store.free_bytes()
    flip_a_bit(store.layout.blob(artifact.manifest.files[0].sha256), 1000)
    with pytest.raises(OutsideError, match="quarantine"):
        store.verify_blob(artifact.manifest.files[0].sha256)
    assert store.free_bytes() == free_bytes
    with pytest.raises(OutsideError, match="full"):
        put_blob(store, b"x" * (free_bytes + 1))
    assert store.collect(dry_run=True, quarantine=True).quarantine_freed_bytes == 0  # the link stays


def test_a_broken_release_in_quarantine_counts_what_is_no_stored_blob(tmp_path: Path) -> None:
    store, artifact = Store(tmp_path, space=Space(quota_bytes=50_000, reserve_bytes=0)), make_artifact()
    stage(store, artifact)
    free_bytes, folder = store.free_bytes(), store.release(artifact.digest).folder
    store.close()
    (folder / "manifest.json").write_bytes(b"")
    own_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    again = Store(tmp_path, space=Space(quota_bytes=50_000, reserve_bytes=0))
    assert again.releases() == {}
    assert again.free_bytes() == free_bytes - own_bytes


def test_what_was_asked_about_within_the_hour_is_kept(tmp_path: Path) -> None:
    clock = FakeTime()
    store = open_store(tmp_path, clock=clock)
    blob = put_blob(store, b"in use soon")
    clock.seconds = PROTECTED_SECONDS
    assert store.missing([blob]) == []  # asked about now
    clock.seconds += PROTECTED_SECONDS - 1
    assert store.collect().freed_bytes == 0
    clock.seconds += 1
    assert store.collect().freed_bytes == blob.size_bytes
    assert store.missing([blob])[0].missing_bytes == blob.size_bytes


def test_a_blob_that_just_came_is_kept(tmp_path: Path) -> None:
    clock = FakeTime()
    clock.seconds = 10 * PROTECTED_SECONDS
    store = open_store(tmp_path, clock=clock)
    put_blob(store, b"fresh")
    assert store.collect().freed_bytes == 0


def test_a_full_store_makes_room_from_what_nobody_needs(tmp_path: Path) -> None:
    clock = FakeTime()
    store = Store(tmp_path, space=Space(quota_bytes=1000, reserve_bytes=0), clock=clock)
    put_blob(store, b"a" * 700)
    clock.seconds = PROTECTED_SECONDS
    put_blob(store, b"b" * 700)
    assert store.missing([make_blob(b"a" * 700)]) != []


def test_a_crash_leaves_no_litter(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    blob = put_blob(store, b"whole")
    store.close()
    (tmp_path / "releases" / ".tmp-half").mkdir()
    (tmp_path / ".tmp-state.json").write_bytes(b"half")
    (tmp_path / "partial" / f"{'a' * 64}.data").write_bytes(b"no record of it")
    (tmp_path / "partial" / f"{'b' * 64}.meta").write_bytes(b"{}")
    (tmp_path / "partial" / f"{blob.sha256}.meta").write_bytes(b"published already")
    again = open_store(tmp_path)
    assert list((tmp_path / "partial").iterdir()) == []
    assert list((tmp_path / "releases").iterdir()) == []
    assert not (tmp_path / ".tmp-state.json").exists()
    assert again.missing([blob]) == []


def test_a_broken_release_goes_to_quarantine_at_start(tmp_path: Path) -> None:
    store, artifact = open_store(tmp_path), make_artifact()
    stage(store, artifact)
    manifest = store.release(artifact.digest).folder / "manifest.json"
    store.close()
    manifest.write_bytes(artifact.manifest_bytes.replace(b'"tiny"', b'"evil"'))
    assert open_store(tmp_path).releases() == {}
    assert len(list((tmp_path / "quarantine").iterdir())) == 1


def test_a_release_with_a_name_that_the_store_clears_is_refused(tmp_path: Path) -> None:
    for path in (
        f"engine/{TEMPORARY_PREFIX}cache/a.bin",
        f"{TEMPORARY_PREFIX}a",
        f"engine/{TEMPORARY_PREFIX}b",
    ):
        plain = make_artifact({path.replace(TEMPORARY_PREFIX, "tmp--"): b"x"}).manifest_bytes
        with pytest.raises(
            InputError, match=re.escape(f"path '{path}' has a name that begins with")
        ) as error:
            parse_manifest(plain.replace(b"tmp--", TEMPORARY_PREFIX.encode()))
        assert error.value.reason == Reason.REASON_MANIFEST_INVALID


def test_a_store_that_has_such_a_folder_already_opens(tmp_path: Path) -> None:
    store, artifact = open_store(tmp_path), make_artifact()
    stage(store, artifact)
    engine = store.release(artifact.digest).tree / "engine"
    store.close()
    (engine / f"{TEMPORARY_PREFIX}cache").mkdir()
    (engine / f"{TEMPORARY_PREFIX}cache" / "a.bin").write_bytes(b"x")
    (engine / f"{TEMPORARY_PREFIX}model.bin").write_bytes(b"a link that was not finished")
    again = open_store(tmp_path)
    assert set(again.releases()) == {artifact.digest}
    assert [path.name for path in engine.iterdir()] == ["model.bin"]  # an engine finds nothing else
    assert again.quarantined_files() == 1  # and nothing of somebody's is lost


def test_a_store_has_one_agent(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(InputError, match="held by another agent"):
        open_store(tmp_path)
    store.close()
    open_store(tmp_path).close()


def test_a_newer_store_is_left_alone(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    (tmp_path / "VERSION").write_bytes(version_line(2))
    with pytest.raises(InputError, match="layout"):
        open_store(tmp_path)


class PowerCutError(Exception):
    """The board is dark."""


class CutAfter(FileSystem):
    """Performs so many operations, then none."""

    def __init__(self, operations: int) -> None:
        self.left = operations

    def _count(self) -> None:
        if self.left == 0:
            raise PowerCutError
        self.left -= 1

    def create(self, path: Path) -> int:
        self._count()
        return super().create(path)

    def write(self, file: int, data: bytes | memoryview, offset: int) -> None:
        self._count()
        super().write(file, data, offset)

    def sync_file(self, file: int) -> None:
        self._count()
        super().sync_file(file)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def sync_folder(self, path: Path) -> None:
        self._count()
        super().sync_folder(path)


@pytest.mark.parametrize("operations", range(6))
def test_a_reader_sees_the_old_or_the_new_file_wherever_a_write_stops(
    tmp_path: Path, operations: int
) -> None:
    path = tmp_path / "file"
    write_durably(FileSystem(), path, b"old")
    try:
        write_durably(CutAfter(operations), path, b"new")
    except PowerCutError:
        assert path.read_bytes() == (b"new" if operations == 4 else b"old")
    else:
        assert operations == 5
        assert path.read_bytes() == b"new"
    write_durably(FileSystem(), path, b"newest")  # no litter is in the way
    assert path.read_bytes() == b"newest"


@pytest.mark.parametrize("operations", range(12))
def test_the_state_is_the_old_or_the_new_one_wherever_a_write_stops(tmp_path: Path, operations: int) -> None:
    path = tmp_path / "state.json"
    StateFile(FileSystem(), path).write({"phase": "old"})
    file = StateFile(CutAfter(operations), path)
    assert file.read() == {"phase": "old"}
    try:
        file.write({"phase": "new"})
    except PowerCutError:
        assert StateFile(FileSystem(), path).read() in ({"phase": "old"}, {"phase": "new"})
    else:
        assert StateFile(FileSystem(), path).read() == {"phase": "new"}


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_an_altered_state_is_noticed_and_its_predecessor_used(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("state") / "state.json"
    file = StateFile(FileSystem(), path)
    file.write({"n": 1})
    file.write({"n": 2})
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    # A flip in JSON's own blanks changes nothing; any other costs one generation, never more.
    assert StateFile(FileSystem(), path).read() in ({"n": 1}, {"n": 2})


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"[" * 100_000, b'{"body": 1}', b"\xff"])
def test_a_state_that_is_another_text_is_noticed_too(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = StateFile(FileSystem(), path)
    file.write({"n": 1})
    file.write({"n": 2})
    path.write_bytes(text)
    assert StateFile(FileSystem(), path).read() == {"n": 1}


@pytest.mark.parametrize("operations", range(40))
def test_a_store_recovers_wherever_an_upload_and_staging_stop(tmp_path: Path, operations: int) -> None:
    artifact = make_artifact(chunk_bytes=8192)
    with contextlib.suppress(PowerCutError):
        store = open_store(tmp_path, fs=CutAfter(operations))
        stage(store, artifact, 8192)
    (tmp_path / "lock").unlink(missing_ok=True)  # the dead agent's lock died with it
    again = open_store(tmp_path)
    for release in again.releases().values():
        assert {path: (release.tree / path).read_bytes() for path in TREE} == TREE
    stage(again, artifact, 8192)
    release = again.release(artifact.digest)
    assert {path: (release.tree / path).read_bytes() for path in TREE} == TREE

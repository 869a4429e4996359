"""One bit flipped anywhere in the store of a board that is off: it is noticed, and nothing altered is served.

Trust documents and the clock are `test_trust`'s, recorded telemetry `test_telemetry_ring`'s.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.durable import FileSystem
from edgewright.errors import EdgewrightError, InputError
from edgewright.trust.accepted_signatures import check_release
from edgewright_agent.store import Space, Store
from edgewright_agent.store.files.releases import read_signed
from edgewright_agent.store.files.version import LAYOUT_VERSION, version_line
from edgewright_agent.store.scrub import scrub
from tests.support.artifacts import make_artifact, make_blob, put_blob, sign, stage
from tests.support.trust_documents import NEW_RELEASE, document, signers

ARTIFACT = make_artifact(chunk_bytes=4096)
DATA = bytes(range(256)) * 16
TRUSTED = document(release=signers(NEW_RELEASE))
KINDS = {
    "blob": "blobs/sha256/*/*",
    "manifest": "releases/*/manifest.json",
    "envelope": "releases/*/manifest.sig",
    "checksums": "releases/*/SHA256SUMS",
    "later envelope": "releases/*/manifest.sig.later",
    "state": "state.json",
    "previous state": "state.json.prev",
    "version": "VERSION",
    "upload record": "partial/*.meta",
    "partial upload": "partial/*.data",
}


def open_store(root: Path) -> Store:
    return Store(root, space=Space(reserve_bytes=0))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a release that was signed twice, a state and half an upload."""
    root = tmp_path_factory.mktemp("filled") / "store"
    store = open_store(root)
    stage(store, ARTIFACT)
    store.resign(ARTIFACT.digest, sign(ARTIFACT.manifest, ARTIFACT.contents, NEW_RELEASE).envelope)
    store.state.write({"n": 1})
    store.state.write({"n": 2})
    upload = store.begin_upload(make_blob(DATA))
    assert upload is not None
    upload.write_chunk(0, DATA[:1024])
    store.end_upload(upload)
    store.close()
    return root


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_a_flipped_bit_is_noticed_and_not_served(filled: Path, kind: str, data: st.DataObject) -> None:
    root = filled.parent / "flipped"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(filled, root, symlinks=True)
    relink(root)
    flip(data.draw(st.sampled_from(sorted(root.glob(KINDS[kind])))), data)
    store = open_store(root)
    try:
        assert store.state.read() == {"n": 1 if kind == "state" else 2}
        assert (root / "VERSION").read_bytes() == version_line(LAYOUT_VERSION)
        found = list(scrub(store))[-1]
        serves_only_what_was_signed(store)
        if kind == "blob":
            assert found.corrupt
            assert found.damaged == (ARTIFACT.digest,)
        elif kind in ("manifest", "envelope", "checksums"):
            assert store.releases() == {}
        if kind == "later envelope":
            with pytest.raises(EdgewrightError):
                check_release(TRUSTED, *read_signed(store.release(ARTIFACT.digest).folder))
        if kind == "partial upload":
            with pytest.raises(InputError):
                put_blob(store, DATA)  # noticed before it is published, and dropped
        put_blob(store, DATA)  # an upload goes on or begins anew
        stage(store, ARTIFACT)  # and a second push mends all
        store.verify_release(store.release(ARTIFACT.digest))
        assert not list(scrub(store))[-1].corrupt
    finally:
        store.close()


@pytest.fixture
def emptied(tmp_path: Path) -> Path:
    """A store that nothing has been put into yet."""
    store = open_store(tmp_path)
    store.state.write({"n": 1})
    store.close()
    return tmp_path


@pytest.mark.parametrize("written", [version_line(LAYOUT_VERSION), b"1\n"], ids=["checksummed", "before"])
def test_a_board_comes_up_whichever_bit_of_its_version_flipped(
    emptied: Path, written: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for bit in range(8 * len(written)):
        content = bytearray(written)
        content[bit // 8] ^= 1 << bit % 8
        (emptied / "VERSION").write_bytes(content)
        caplog.clear()
        open_store(emptied).close()
        assert "VERSION is damaged" in caplog.text
        assert (emptied / "VERSION").read_bytes() == version_line(LAYOUT_VERSION)


def test_a_version_without_a_checksum_gets_one(emptied: Path, caplog: pytest.LogCaptureFixture) -> None:
    (emptied / "VERSION").write_bytes(b"1\n")
    open_store(emptied).close()
    assert (emptied / "VERSION").read_bytes() == version_line(LAYOUT_VERSION)
    assert caplog.text == ""


def strange_state(root: Path) -> None:
    (root / "state.json").write_bytes(b"layout 3 keeps something else here")


def no_uploads(root: Path) -> None:
    (root / "partial").rmdir()


@pytest.mark.parametrize(
    ("change", "lacks"), [(strange_state, "a sound state.json"), (no_uploads, "partial")]
)
def test_a_damaged_version_is_left_alone_where_the_rest_is_not_plainly_ours(
    emptied: Path, change: Callable[[Path], None], lacks: str
) -> None:
    (emptied / "VERSION").write_bytes(b"3\n")
    change(emptied)
    with pytest.raises(InputError, match=f"lacks {lacks}"):
        open_store(emptied)
    assert (emptied / "VERSION").read_bytes() == b"3\n"


class FullDisk(FileSystem):
    def create(self, path: Path) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_does_not_keep_a_board_with_a_damaged_version_from_starting(emptied: Path) -> None:
    (emptied / "VERSION").write_bytes(b"3\n")
    Store(emptied, space=Space(reserve_bytes=0), fs=FullDisk()).close()
    assert (emptied / "VERSION").read_bytes() == b"3\n"


def serves_only_what_was_signed(store: Store) -> None:
    for release in store.releases().values():
        try:
            store.verify_release(release)
        except EdgewrightError:
            continue  # no engine is started on it
        for file in release.manifest.files:
            assert (release.tree / file.path).read_bytes() == ARTIFACT.contents[file.sha256]


def relink(root: Path) -> None:
    """copytree makes copies of what were links to the same blob."""
    for file in ARTIFACT.manifest.files:
        path = root / "releases" / ARTIFACT.digest / "tree" / file.path
        path.unlink()
        path.hardlink_to(root / "blobs/sha256" / file.sha256[:2] / file.sha256)


def flip(path: Path, data: st.DataObject) -> None:
    content = bytearray(path.read_bytes())
    written = 1024 if path.suffix == ".data" else len(content)  # the rest of an upload is not there yet
    content[data.draw(st.integers(0, written - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.chmod(0o644)
    path.write_bytes(content)

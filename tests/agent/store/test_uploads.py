"""What an upload promises: verified chunks, durable windows, resumption, and a disk that may be full."""

from __future__ import annotations

import errno
import itertools
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.durable import FileSystem
from edgewright.errors import BusyError, InputError, OutsideError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.store import Blob, Space, Store
from edgewright_agent.store.blobs import upload as upload_module
from edgewright_agent.store.blobs.blob import from_ranges, to_ranges
from tests.support.artifacts import cut, make_artifact, make_blob, put_blob, sha256, stage

DATA = random.Random(1).randbytes(10 * 1024)  # 10 chunks
NO_RESERVE = Space(reserve_bytes=0)


def open_store(root: Path, space: Space = NO_RESERVE, fs: FileSystem | None = None) -> Store:
    return Store(root, space=space, fs=fs)


def send(store: Store, blob: Blob, data: bytes, chunks: list[int]) -> None:
    """Writes these chunks and stops, as a client does whose link drops."""
    upload = store.begin_upload(blob)
    assert upload is not None
    for index in chunks:
        start = blob.offsets[index]
        upload.write_chunk(index, data[start : start + blob.chunks[index][1]])
    store.end_upload(upload)


def test_a_complete_upload_is_a_read_only_blob_under_its_digest(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    blob = put_blob(store, DATA)
    path = tmp_path / "blobs" / "sha256" / blob.sha256[:2] / blob.sha256
    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o777 == 0o444
    assert store.missing([blob]) == []
    assert store.write_status(blob.sha256).complete
    assert list((tmp_path / "partial").iterdir()) == []


def test_an_empty_file_can_be_stored(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    blob = put_blob(store, b"")
    assert blob.chunks == ()
    assert store.missing([blob]) == []


def test_an_upload_resumes_where_it_was_durable_also_after_a_restart(tmp_path: Path) -> None:
    blob = make_blob(DATA)
    store = open_store(tmp_path)
    send(store, blob, DATA, [0, 1, 4])
    store.close()
    store = open_store(tmp_path)
    (missing,) = store.missing([blob])
    assert from_ranges(missing.chunks) == {2, 3, 5, 6, 7, 8, 9}
    assert missing.missing_bytes == 7 * 1024
    assert store.write_status(blob.sha256).durable_bytes == 3 * 1024
    send(store, blob, DATA, [2, 3, 5])
    put_blob(store, DATA)
    assert store.missing([blob]) == []


def test_only_what_was_flushed_is_reported(tmp_path: Path) -> None:
    store, blob = open_store(tmp_path), make_blob(DATA)
    upload = store.begin_upload(blob)
    assert upload is not None
    upload.write_chunk(0, DATA[:1024])
    assert store.write_status(blob.sha256).durable_bytes == 0
    upload.flush()
    assert store.write_status(blob.sha256).durable_bytes == 1024
    store.end_upload(upload)


@pytest.mark.parametrize("window", ["FLUSH_BYTES", "FLUSH_SECONDS"])
def test_a_power_cut_costs_one_flush_window_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: str
) -> None:
    monkeypatch.setattr(upload_module, window, 2048 if window == "FLUSH_BYTES" else 0.0)
    store, blob = open_store(tmp_path), make_blob(DATA)
    upload = store.begin_upload(blob)
    assert upload is not None
    for index in range(3):
        upload.write_chunk(index, DATA[index * 1024 : (index + 1) * 1024])
    expected = 2 * 1024 if window == "FLUSH_BYTES" else 3 * 1024
    assert store.write_status(blob.sha256).durable_bytes == expected
    upload.close()
    store.close()  # nothing was flushed at the end
    assert open_store(tmp_path).missing([blob])[0].missing_bytes == len(DATA) - expected


def test_another_cut_of_the_same_blob_starts_afresh(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    send(store, make_blob(DATA, 1024), DATA, [0, 1, 2])
    other = make_blob(DATA, 2048)
    assert from_ranges(store.missing([other])[0].chunks) == set(range(5))
    put_blob(store, DATA, 2048)
    assert store.missing([other]) == []


def test_a_chunk_with_a_wrong_digest_is_refused_and_not_kept(tmp_path: Path) -> None:
    store, blob = open_store(tmp_path), make_blob(DATA)
    upload = store.begin_upload(blob)
    assert upload is not None
    with pytest.raises(InputError) as error:
        upload.write_chunk(0, b"x" * 1024)
    store.end_upload(upload)
    assert error.value.reason == Reason.REASON_DIGEST_MISMATCH
    with pytest.raises(RefusedError):
        store.write_status(blob.sha256)
    assert list((tmp_path / "partial").iterdir()) == []  # an upload that brought nothing holds no space


def test_right_chunks_of_a_wrong_blob_are_refused_and_dropped(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    liar = Blob(sha256(b"something else"), len(DATA), make_blob(DATA).chunks)
    upload = store.begin_upload(liar)
    assert upload is not None
    for index, part in enumerate(cut(DATA, 1024)):
        upload.write_chunk(index, part)
    with pytest.raises(InputError) as error:
        store.end_upload(upload, complete=True)
    assert error.value.reason == Reason.REASON_DIGEST_MISMATCH
    assert list((tmp_path / "partial").iterdir()) == []
    with pytest.raises(RefusedError):
        store.write_status(liar.sha256)


def test_an_upload_without_all_chunks_is_not_published_and_keeps_what_it_has(tmp_path: Path) -> None:
    store, blob = open_store(tmp_path), make_blob(DATA)
    upload = store.begin_upload(blob)
    assert upload is not None
    upload.write_chunk(3, DATA[3 * 1024 : 4 * 1024])
    with pytest.raises(InputError, match="9 chunks are missing"):
        store.end_upload(upload, complete=True)
    assert store.missing([blob])[0].missing_bytes == 9 * 1024


def test_a_blob_has_one_writer(tmp_path: Path) -> None:
    store, blob = open_store(tmp_path), make_blob(DATA)
    upload = store.begin_upload(blob)
    assert upload is not None
    with pytest.raises(BusyError):
        store.begin_upload(blob)
    store.end_upload(upload)
    put_blob(store, DATA)
    assert store.begin_upload(blob) is None


def test_chunks_of_other_blobs_need_not_be_sent(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put_blob(store, DATA)
    changed = DATA[:2048] + b"y" * 1024 + DATA[3072:]
    blob = make_blob(changed)
    assert [from_ranges(each.chunks) for each in store.missing([blob])] == [{2}]
    send(store, blob, changed, [2])
    put_blob(store, changed)
    assert store.missing([blob]) == []


def test_staged_releases_give_their_chunks_also_after_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    stage(store, make_artifact({"engine/model.bin": DATA}, chunk_bytes=1024), 1024)
    store.close()
    changed = b"z" * 1024 + DATA[1024:]
    (missing,) = open_store(tmp_path).missing([make_blob(changed)])
    assert from_ranges(missing.chunks) == {0}


def test_a_rotten_donor_gives_no_chunk(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    donor = put_blob(store, DATA)
    flip_a_bit(tmp_path / "blobs" / "sha256" / donor.sha256[:2] / donor.sha256, 100)
    changed = DATA[:-1024] + b"y" * 1024
    blob = make_blob(changed)
    send(store, blob, changed, [9])
    assert from_ranges(store.missing([blob])[0].chunks) == {0}  # found out while copying
    send(store, blob, changed, [0])
    put_blob(store, changed)
    assert store.missing([blob]) == []


def test_a_chunk_stays_known_as_long_as_one_blob_holds_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    put_blob(store, DATA)
    second = put_blob(store, DATA[:-1024] + b"y" * 1024)
    flip_a_bit(tmp_path / "blobs" / "sha256" / second.sha256[:2] / second.sha256, len(DATA) - 1)
    with pytest.raises(OutsideError, match="quarantine"):
        store.verify_blob(second.sha256)
    third = make_blob(b"z" * 1024 + DATA[1024:])
    assert [from_ranges(each.chunks) for each in store.missing([third])] == [{0}]


@pytest.mark.parametrize("rotten", [0, 1])
def test_a_chunk_comes_from_a_sound_donor_where_another_one_rots(tmp_path: Path, rotten: int) -> None:
    store = open_store(tmp_path)
    donors = [put_blob(store, DATA), put_blob(store, DATA[:-1024] + b"y" * 1024)]
    donor = donors[rotten].sha256
    flip_a_bit(tmp_path / "blobs" / "sha256" / donor[:2] / donor, 100)  # in a chunk of both
    changed = DATA[:-1024] + b"z" * 1024
    send(store, make_blob(changed), changed, [9])
    assert store.missing([make_blob(changed)])[0].chunks == ()


def test_the_quota_is_checked_before_the_first_byte(tmp_path: Path) -> None:
    store = open_store(tmp_path, Space(quota_bytes=15 * 1024, reserve_bytes=0))
    put_blob(store, DATA)
    with pytest.raises(OutsideError) as error:
        store.begin_upload(make_blob(DATA[::-1]))
    assert error.value.reason == Reason.REASON_DISK_SPACE
    assert list((tmp_path / "partial").iterdir()) == []
    assert store.free_bytes() == 5 * 1024


class FullDisk(FileSystem):
    """No block is free."""

    def allocate(self, file: int, size_bytes: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_said_so_and_leaves_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path, fs=FullDisk())
    with pytest.raises(OutsideError) as error:
        store.begin_upload(make_blob(DATA))
    assert error.value.reason == Reason.REASON_DISK_SPACE
    assert list((tmp_path / "partial").iterdir()) == []
    store.close()
    put_blob(open_store(tmp_path), DATA)


def flip_a_bit(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


@given(st.sets(st.integers(0, 200)))
def test_ranges_say_exactly_the_chunks(chunks: set[int]) -> None:
    ranges = to_ranges(chunks)
    assert from_ranges(ranges) == chunks
    assert all(a.first + a.count < b.first for a, b in itertools.pairwise(ranges))

"""Chunks that go past the page cache: the same bytes in the file, wherever they begin and whatever the disk can do."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.durable import FileSystem
from edgewright.errors import OutsideError
from edgewright_agent.store import ChunkBuffer, Space, Store
from edgewright_agent.store.blobs.direct_io import DIRECT_BYTES_MIN, HUGE_PAGE_BYTES, PAGE_BYTES, ChunkFile
from tests.support.artifacts import cut, make_blob, put_blob

DATA = random.Random(3).randbytes(1024 * 1024)


class DirectFileSystem(FileSystem):
    """Counts what goes past the cache, and may refuse it with `error`: when the file is opened, or written."""

    def __init__(self, *, opening: int = 0, writing: int = 0) -> None:
        self._opening = opening
        self._writing = writing
        self._direct: set[int] = set()
        self.opened = 0
        self.direct_bytes = 0

    def open_direct(self, path: Path) -> int:
        self.opened += 1
        if self._opening:
            raise OSError(self._opening, os.strerror(self._opening))
        file = super().open_direct(path)
        self._direct.add(file)
        return file

    def close(self, file: int) -> None:
        self._direct.discard(file)
        super().close(file)

    def write(self, file: int, data: bytes | memoryview, offset: int) -> None:
        if file in self._direct:
            if self._writing:
                raise OSError(self._writing, os.strerror(self._writing))
            self.direct_bytes += len(data)
        super().write(file, data, offset)


def open_store(root: Path, fs: FileSystem) -> Store:
    return Store(root, space=Space(reserve_bytes=0), fs=fs)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.integers(1, 300_000), min_size=1, max_size=6), st.booleans())
def test_chunks_of_any_cut_lie_where_they_belong(tmp_path: Path, sizes: list[int], aligned: bool) -> None:
    fs, path = FileSystem(), tmp_path / "file"
    path.unlink(missing_ok=True)
    file = fs.create(path)
    fs.allocate(file, sum(sizes))
    chunks, buffer, begin = ChunkFile(fs, path, file), ChunkBuffer(max(sizes) + PAGE_BYTES), 0
    for size in sizes:
        room = buffer.at(begin if aligned else begin + 1, size)
        room[:] = DATA[begin % 1000 : begin % 1000 + size]
        chunks.write(room, begin)
        begin += size
    chunks.close()
    fs.close(file)
    begin, expected = 0, b""
    for size in sizes:
        expected += DATA[begin % 1000 : begin % 1000 + size]
        begin += size
    assert path.read_bytes() == expected


def test_what_is_received_goes_past_the_cache_but_for_its_edges(tmp_path: Path) -> None:
    fs = DirectFileSystem()
    put_blob(open_store(tmp_path, fs), DATA, 200_000)
    assert 5 * (200_000 - 2 * PAGE_BYTES) <= fs.direct_bytes <= 5 * 200_000  # the sixth chunk is small


def test_small_chunks_do_not_go_to_the_disk_one_by_one(tmp_path: Path) -> None:
    fs = DirectFileSystem()
    put_blob(open_store(tmp_path, fs), DATA, DIRECT_BYTES_MIN // 2)
    assert fs.direct_bytes == 0


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP])
@pytest.mark.parametrize("where", ["opening", "writing"])
def test_a_file_system_that_can_not_is_written_through_the_cache(
    tmp_path: Path, where: str, error: int
) -> None:
    fs = DirectFileSystem(**{where: error})
    store = open_store(tmp_path, fs)
    blob = put_blob(store, DATA, 200_000)
    assert fs.opened == 1
    assert store.layout.blob(blob.sha256).read_bytes() == DATA


def test_a_disk_that_fails_is_an_error_and_not_a_reason_to_try_through_the_cache(tmp_path: Path) -> None:
    store = open_store(tmp_path, DirectFileSystem(writing=errno.EIO))
    with pytest.raises(OutsideError, match="could not be written"):
        put_blob(store, DATA, 200_000)
    assert store.blob_bytes() == {}


def test_chunks_are_written_side_by_side(tmp_path: Path) -> None:
    store, chunk_bytes = open_store(tmp_path, FileSystem()), 200_001
    parts = cut(DATA, chunk_bytes)
    blob = put_blob_from_threads(store, parts, chunk_bytes)
    assert store.layout.blob(blob).read_bytes() == DATA


def put_blob_from_threads(store: Store, parts: list[bytes], chunk_bytes: int) -> str:
    blob = make_blob(DATA, chunk_bytes)
    upload = store.begin_upload(blob)
    assert upload is not None

    def write(index: int) -> None:
        room = ChunkBuffer(chunk_bytes).at(blob.offsets[index], len(parts[index]))
        room[:] = parts[index]
        upload.write_chunk(index, room)

    threads = [threading.Thread(target=write, args=(index,)) for index in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.end_upload(upload, complete=True)
    return blob.sha256


def test_a_large_buffer_lies_in_huge_pages_and_holds_a_whole_chunk_at_any_offset() -> None:
    buffer = ChunkBuffer(2 * HUGE_PAGE_BYTES)
    for offset_bytes in (0, 1, PAGE_BYTES - 1, PAGE_BYTES):
        assert len(buffer.at(offset_bytes, 2 * HUGE_PAGE_BYTES)) == 2 * HUGE_PAGE_BYTES

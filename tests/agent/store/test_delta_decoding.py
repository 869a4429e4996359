"""What a delta promises: the chunk or a refusal, whatever comes, in memory that does not grow with it."""

from __future__ import annotations

import contextlib
import os
import random
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.chunk_delta import STRETCHES_MAX, Delta, Stretch, check_delta, xor
from edgewright.errors import InputError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.store import Store, apply_delta
from edgewright_agent.store.files.layout import Layout
from tests.support.artifacts import put_blob

MIB = 1024 * 1024
OLD = random.Random(1).randbytes(64 * 1024)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    store = Store(tmp_path_factory.mktemp("store"))
    put_blob(store, OLD)
    return store.layout


def old_blob(layout: Layout) -> str:
    return next(layout.blobs.glob("*/*")).name


def base_bytes(stretches: tuple[Stretch, ...], size_bytes: int) -> bytes:
    base = bytearray(size_bytes)
    for s in stretches:
        base[s.offset_bytes : s.offset_bytes + s.size_bytes] = OLD[s.blob_offset_bytes :][: s.size_bytes]
    return bytes(base)


@st.composite
def chunks_and_stretches(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, int, int]]]:
    """A chunk, and stretches of it that lie anywhere in the old blob, also out of its order."""
    chunk = draw(st.binary(min_size=1, max_size=4096))
    cuts = sorted(draw(st.sets(st.integers(0, len(chunk)), max_size=8)))
    stretches = []
    for begin, end in zip(cuts[::2], cuts[1::2], strict=False):
        at = draw(st.integers(0, len(OLD) - (end - begin)))
        stretches.append((begin, end - begin, at))
    return chunk, stretches


@given(case=chunks_and_stretches())
def test_what_was_xored_and_compressed_comes_back(
    layout: Layout, case: tuple[bytes, list[tuple[int, int, int]]]
) -> None:
    chunk, places = case
    stretches = tuple(Stretch(offset, size, old_blob(layout), at) for offset, size, at in places)
    frame = zstandard.compress(xor(chunk, base_bytes(stretches, len(chunk))))
    delta = Delta(0, len(frame), stretches)
    assert apply_delta(layout, delta, frame, len(chunk)) == chunk


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_frame_is_refused_or_makes_bytes_of_the_right_number(
    layout: Layout, data: st.DataObject
) -> None:
    chunk = OLD[:3000]
    frame = bytearray(zstandard.compress(chunk))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    del frame[data.draw(st.integers(1, len(frame))) :]
    with contextlib.suppress(InputError):
        made = apply_delta(layout, Delta(0, len(frame), ()), bytes(frame), len(chunk))
        assert len(made) == len(chunk)  # its digest decides


@given(cut=st.integers(1, 2000))
def test_a_truncated_frame_is_refused(layout: Layout, cut: int) -> None:
    frame = zstandard.compress(OLD[:3000])
    short = frame[: max(1, len(frame) - cut)]
    with pytest.raises(InputError, match="delta"):
        apply_delta(layout, Delta(0, len(short), ()), short, 3000)


def test_a_wrong_base_makes_other_bytes(layout: Layout) -> None:
    stretch = Stretch(0, 1000, old_blob(layout), 0)
    elsewhere = Stretch(0, 1000, old_blob(layout), 1)
    frame = zstandard.compress(xor(bytes(1000), base_bytes((stretch,), 1000)))
    assert apply_delta(layout, Delta(0, len(frame), (stretch,)), frame, 1000) == bytes(1000)
    assert apply_delta(layout, Delta(0, len(frame), (elsewhere,)), frame, 1000) != bytes(1000)


@pytest.mark.parametrize("offset_bytes", [len(OLD) - 999, len(OLD) + 1, 2**60])
def test_a_base_beyond_the_blob_is_missing(layout: Layout, offset_bytes: int) -> None:
    frame = zstandard.compress(bytes(1000))
    stretch = Stretch(0, 1000, old_blob(layout), offset_bytes)
    with pytest.raises(RefusedError) as caught:
        apply_delta(layout, Delta(0, len(frame), (stretch,)), frame, 1000)
    assert caught.value.reason == Reason.REASON_DELTA_BASE_MISSING


def test_a_base_in_a_blob_that_is_not_here_is_missing(layout: Layout) -> None:
    frame = zstandard.compress(bytes(1000))
    delta = Delta(0, len(frame), (Stretch(0, 1000, "ab" * 32, 0),))
    with pytest.raises(RefusedError, match=r"is not here\. Send the chunk itself"):
        apply_delta(layout, delta, frame, 1000)


def test_a_decompression_bomb_costs_one_chunk_of_memory(layout: Layout) -> None:
    bomb = zstandard.compress(bytes(512 * MIB))
    tracemalloc.start()
    with pytest.raises(InputError, match=f"more than {4 * MIB} bytes"):
        apply_delta(layout, Delta(0, len(bomb), ()), bomb, 4 * MIB)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 6 * MIB


def test_a_window_of_more_than_4_mib_is_refused(layout: Layout) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=24, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # of unknown size
    frame = compressor.compress(os.urandom(MIB)) + compressor.flush()
    with pytest.raises(InputError, match="window of at most 4 MiB"):
        apply_delta(layout, Delta(0, len(frame), ()), frame, MIB)


@pytest.mark.parametrize(
    ("frame_bytes", "places"),
    [
        (0, []),
        (1001, []),
        (10, [(0, 600, 0), (500, 10, 0)]),
        (10, [(500, 10, 0), (0, 10, 0)]),
        (10, [(0, 0, 0)]),
        (10, [(990, 11, 0)]),
        (10, [(index, 1, 0) for index in range(STRETCHES_MAX + 1)]),
    ],
)
def test_a_delta_out_of_bounds_is_refused_before_any_part(
    frame_bytes: int, places: list[tuple[int, int, int]]
) -> None:
    base = tuple(Stretch(offset, size, "ab" * 32, at) for offset, size, at in places)
    with pytest.raises(InputError):
        check_delta(Delta(0, frame_bytes, base), 1000 if len(places) <= STRETCHES_MAX else 4 * MIB)


def test_the_base_is_read_in_pieces(tmp_path: Path) -> None:
    store, old = Store(tmp_path), os.urandom(4 * MIB)
    blob = put_blob(store, old, MIB)
    frame = zstandard.compress(bytes(len(old)))
    tracemalloc.start()
    delta = Delta(0, len(frame), (Stretch(0, len(old), blob.sha256, 0),))
    made = apply_delta(store.layout, delta, frame, len(old))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made == old
    assert peak_bytes < len(old) + 3 * MIB

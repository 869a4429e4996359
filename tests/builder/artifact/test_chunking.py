from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgewright.errors import InputError
from edgewright.manifest import CHUNK_BYTES_MAX
from edgewright_builder.artifact.chunking import LARGE_TENSOR_BYTES, chunk_sizes, cut

MIB = 1024 * 1024
SIZES = st.integers(0, 40 * MIB)


def starts_of(sizes: list[int]) -> set[int]:
    return {sum(sizes[:index]) for index in range(len(sizes))}


def write_safetensors(path: Path, tensors: dict[str, int]) -> None:
    header, offset = {}, 0
    for name, size in tensors.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(offset))


@given(SIZES, st.lists(SIZES, max_size=60))
def test_chunks_partition_the_file(size_bytes: int, boundaries: list[int]) -> None:
    sizes = cut(size_bytes, boundaries)
    assert sum(sizes) == size_bytes
    assert all(0 < size <= CHUNK_BYTES_MAX for size in sizes)


@given(st.lists(st.integers(1, 10 * MIB), min_size=1, max_size=40))
def test_every_large_tensor_starts_a_chunk(tensors: list[int]) -> None:
    starts = [sum(tensors[:index]) for index in range(len(tensors))]
    chunk_starts = starts_of(cut(sum(tensors), starts))
    large = {start for start, size in zip(starts, tensors, strict=True) if size >= LARGE_TENSOR_BYTES}
    assert large <= chunk_starts


@given(st.lists(st.integers(1, LARGE_TENSOR_BYTES - 1), min_size=1, max_size=200))
def test_small_tensors_are_packed_and_never_split(tensors: list[int]) -> None:
    starts = [sum(tensors[:index]) for index in range(len(tensors))]
    sizes = cut(sum(tensors), starts)
    assert starts_of(sizes) <= set(starts)
    assert all(a + b > CHUNK_BYTES_MAX for a, b in pairwise(sizes))


@given(
    st.lists(st.integers(1, 3 * MIB), max_size=20),
    st.lists(st.integers(1, 3 * MIB), max_size=20),
    st.lists(st.integers(1, 6 * MIB), min_size=1, max_size=20),
)
def test_changes_before_a_large_tensor_move_no_boundary_behind_it(
    before: list[int], other: list[int], after: list[int]
) -> None:
    def tail(head: list[int]) -> list[int]:
        tensors = [*head, 2 * MIB, *after]
        start = sum(head)
        chunks = cut(sum(tensors), [sum(tensors[:index]) for index in range(len(tensors))])
        return sorted(begin - start for begin in starts_of(chunks) if begin >= start)

    assert tail(before) == tail(other)


def test_safetensors_are_cut_at_their_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": 2 * MIB, "b": 9 * MIB, "c": 100, "d": 200})
    header = path.stat().st_size - 11 * MIB - 300
    assert chunk_sizes(path) == [header, 2 * MIB, 4 * MIB, 4 * MIB, MIB, 300]


def test_onnx_external_data_is_cut_at_its_tensors(tmp_path: Path) -> None:
    arrays = {
        "big": np.zeros(5 * MIB, np.uint8),
        "small": np.zeros(7000, np.uint8),
        "next": np.ones(MIB, np.uint8),
    }
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    output = helper.make_tensor_value_info("big", TensorProto.UINT8, [5 * MIB])
    model = helper.make_model(helper.make_graph([], "g", [], [output], tensors))
    onnx.save_model(
        model, str(tmp_path / "model.onnx"), save_as_external_data=True, location="model.onnx.data"
    )
    offsets = {
        tensor.name: int({entry.key: entry.value for entry in tensor.external_data}["offset"])
        for tensor in onnx.load(str(tmp_path / "model.onnx"), load_external_data=False).graph.initializer
    }
    data = tmp_path / "model.onnx.data"
    sizes = chunk_sizes(data)
    assert sum(sizes) == data.stat().st_size
    assert {offsets["big"], offsets["big"] + 4 * MIB, offsets["next"]} <= starts_of(sizes)


def test_other_files_are_cut_every_four_mebibytes(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(bytes(9 * MIB + 1))
    assert chunk_sizes(path) == [4 * MIB, 4 * MIB, MIB + 1]


def test_an_empty_file_has_no_chunks(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert chunk_sizes(tmp_path / "empty") == []


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, (4).to_bytes(8, "little") + b"nope", (2).to_bytes(8, "little") + b"[]"]
)
def test_a_corrupt_safetensors_header_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        chunk_sizes(path)


def test_a_corrupt_onnx_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 50)
    (tmp_path / "model.onnx.data").write_bytes(bytes(100))
    with pytest.raises(InputError, match=r"model\.onnx is no valid ONNX model"):
        chunk_sizes(tmp_path / "model.onnx.data")

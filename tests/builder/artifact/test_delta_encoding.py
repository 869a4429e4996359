"""Frames against an earlier artifact: what the board makes of them is the new chunk, and never more bytes than it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.chunk_delta import Delta
from edgewright_agent.store import Store, apply_delta
from edgewright_agent.store.files.layout import Layout
from edgewright_builder.artifact import delta_encoding as delta_module
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.artifact.delta_encoding import DeltaMaker, Frame, Frames
from edgewright_builder.artifact.diff import compare
from edgewright_builder.artifact.tensors import TensorPlace, tensor_places
from tests.support.artifacts import put_blob
from tests.support.built_artifacts import KEY, make_artifact

KIB = 1024


def noise(size_bytes: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def touched(data: bytes, every: int = 200) -> bytes:
    """A few bytes other, as a re-specialised tensor has them."""
    changed = bytearray(data)
    for index in range(0, len(changed), every):
        changed[index] ^= 1 + index % 15
    return bytes(changed)


def safetensors(tensors: dict[str, bytes]) -> bytes:
    header, offset = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


def artifact(folder: Path, files: dict[str, bytes]) -> Artifact:
    return make_artifact(folder, files, KEY)


def board_with(folder: Path, old: Artifact) -> Layout:
    store = Store(folder)
    for file in old.manifest.files:
        put_blob(store, old.path(file).read_bytes(), 1024 * KIB)
    store.close()
    return store.layout


def chunk_of(new: Artifact, path: str, index: int) -> bytes:
    file = next(file for file in new.manifest.files if file.path == path)
    begin = sum(chunk.size_bytes for chunk in file.chunks[:index])
    return new.path(file).read_bytes()[begin : begin + file.chunks[index].size_bytes]


def frame_of(old: Artifact, new: Artifact, path: str, index: int = 0) -> Frame | None:
    return DeltaMaker(new, old).frame(next(file for file in new.manifest.files if file.path == path), index)


def applied(layout: Layout, frame: Frame, size_bytes: int) -> bytearray:
    return apply_delta(layout, Delta(0, len(frame.data), frame.base), frame.data, size_bytes)


def test_a_tensor_is_found_in_another_file_at_another_offset(tmp_path: Path) -> None:
    first, second = noise(60 * KIB, 1), noise(40 * KIB, 2)
    old = artifact(tmp_path / "old", {"a.safetensors": safetensors({"x": first, "y": second})})
    moved = safetensors({"new": noise(5 * KIB, 3), "y": touched(second), "x": touched(first)})
    new = artifact(tmp_path / "new", {"b/c.safetensors": moved})
    frame = frame_of(old, new, "b/c.safetensors")
    assert frame is not None
    assert len(frame.data) < 10 * KIB
    assert applied(board_with(tmp_path / "board", old), frame, len(moved)) == moved


def test_a_file_without_tensors_is_compared_offset_by_offset(tmp_path: Path) -> None:
    data = noise(50 * KIB, 1)
    old = artifact(tmp_path / "old", {"model.bin": data})
    longer = touched(data) + noise(KIB, 2)
    new = artifact(tmp_path / "new", {"model.bin": longer})
    frame = frame_of(old, new, "model.bin")
    assert frame is not None
    assert len(frame.data) < 4 * KIB
    assert applied(board_with(tmp_path / "board", old), frame, len(longer)) == longer


def test_every_chunk_of_a_file_of_many_is_made(tmp_path: Path) -> None:
    data = noise(9 * 1024 * KIB, 1)
    old = artifact(tmp_path / "old", {"model.bin": data})
    new = artifact(tmp_path / "new", {"model.bin": touched(data, 5000)})
    layout = board_with(tmp_path / "board", old)
    for index in range(3):
        frame, chunk = frame_of(old, new, "model.bin", index), chunk_of(new, "model.bin", index)
        assert frame is not None
        assert applied(layout, frame, len(chunk)) == chunk


def test_what_has_nothing_in_common_travels_as_it_is(tmp_path: Path) -> None:
    old = artifact(tmp_path / "old", {"model.bin": noise(50 * KIB, 1)})
    new = artifact(tmp_path / "new", {"model.bin": noise(50 * KIB, 2)})
    assert frame_of(old, new, "model.bin") is None


def test_what_compresses_better_alone_has_no_base(tmp_path: Path) -> None:
    old = artifact(tmp_path / "old", {"model.bin": noise(50 * KIB, 1)})
    new = artifact(tmp_path / "new", {"model.bin": bytes(50 * KIB)})
    frame = frame_of(old, new, "model.bin")
    assert frame is not None
    assert frame.base == ()
    assert applied(board_with(tmp_path / "board", old), frame, 50 * KIB) == bytes(50 * KIB)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
    kept=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_whatever_tensors_move_vanish_or_appear_the_board_makes_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], order: random.Random, kept: list[bool]
) -> None:
    folder = tmp_path_factory.mktemp("case")
    tensors = {f"t{index}": noise(size, index) for index, size in enumerate(sizes)}
    names = [name for name, keep in zip(tensors, kept, strict=False) if keep] or ["t0"]
    order.shuffle(names)
    old = artifact(folder / "old", {"m.safetensors": safetensors(tensors)})
    data = safetensors({name: touched(tensors[name]) for name in names})
    new = artifact(folder / "new", {"m.safetensors": data})
    frame = frame_of(old, new, "m.safetensors")
    if frame is not None:
        assert len(frame.data) < len(data)
        assert applied(board_with(folder / "board", old), frame, len(data)) == data


def test_frames_are_made_once_and_kept_out_of_memory(tmp_path: Path) -> None:
    data = noise(50 * KIB, 1)
    old = artifact(tmp_path / "old", {"m.bin": data, "n.bin": noise(KIB, 5)})
    new = artifact(tmp_path / "new", {"m.bin": touched(data), "n.bin": noise(KIB, 6)})
    frames = Frames(DeltaMaker(new, old))
    for _ in range(2):
        for file in new.manifest.files:
            frames.make(file, [0])
    first, second = new.manifest.files
    made = frames.get(first.sha256, 0)
    assert made == frame_of(old, new, "m.bin")
    assert made is not None
    assert frames.size_bytes(first.sha256, 0) == len(made.data)
    assert frames.get(second.sha256, 0) is None
    assert frames.size_bytes(second.sha256, 0) is None
    frames.close()


def test_a_host_without_onnx_compares_offset_by_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_onnx(path: Path) -> dict[str, TensorPlace]:
        raise ModuleNotFoundError("onnx", name="onnx")

    monkeypatch.setattr(delta_module, "tensor_places", no_onnx)
    data = noise(20 * KIB, 1)
    old = artifact(tmp_path / "old", {"model.onnx.data": data})
    new = artifact(tmp_path / "new", {"model.onnx.data": touched(data)})
    frame = frame_of(old, new, "model.onnx.data")
    assert frame is not None
    assert len(frame.base) == 1


def test_tensors_of_onnx_external_data_are_found_by_name(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    weights = {"a": np.arange(64, dtype=np.float32), "b": np.ones(32, dtype=np.float32)}
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    model = helper.make_model(helper.make_graph([], "g", [], [], tensors))
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    places = tensor_places(tmp_path / "model.onnx.data")
    data = (tmp_path / "model.onnx.data").read_bytes()
    assert places.keys() == {"a", "b"}
    for name, place in places.items():
        stored = data[place.offset_bytes : place.offset_bytes + place.size_bytes]
        assert stored == weights[name].tobytes()


def test_a_comparison_counts_tensors_files_and_bytes(tmp_path: Path) -> None:
    first, second = noise(30 * KIB, 1), noise(20 * KIB, 2)
    accuracy = {"task": "t", "model": "exported", "accuracy": 0.5, "standard_error": 0.03, "rows": 9}
    old = make_artifact(
        tmp_path / "old",
        {"m.safetensors": safetensors({"x": first, "y": second}), "gone": b"1", "same": b"2"},
        KEY, accuracy=[accuracy], lineage={"recipe": {"task": "one"}},
    )  # fmt: skip
    new = make_artifact(
        tmp_path / "new",
        {"m.safetensors": safetensors({"x": touched(first, 100), "y": second}), "more": b"3", "same": b"2"},
        KEY, accuracy=[accuracy | {"accuracy": 0.6, "standard_error": 0.04}], lineage={"recipe": {"task": "two"}},
    )  # fmt: skip
    found = compare(old, new)
    assert [(field.name, field.old, field.new) for field in found.fields] == [
        ("lineage.recipe.task", "one", "two")
    ]
    (score,) = found.accuracy
    assert (round(score.difference, 6), round(score.standard_error, 6)) == (0.1, 0.05)
    sizes = {change.path: (change.old_bytes, change.new_bytes) for change in found.files}
    assert sizes.keys() == {"gone", "m.safetensors", "more"}
    assert (sizes["gone"], sizes["more"]) == ((1, None), (None, 1))
    tensors = found.tensors
    assert (tensors.same, tensors.changed, tensors.added, tensors.removed) == (1, 1, 0, 0)
    assert (tensors.changed_bytes, tensors.differing_bytes) == (len(first), -(-len(first) // 100))
    transfer = found.transfer
    assert transfer.delta_bytes < transfer.plain_bytes / 10 < transfer.artifact_bytes


def test_a_comparison_of_an_artifact_with_itself_sends_nothing(tmp_path: Path) -> None:
    same = artifact(tmp_path / "same", {"m.bin": noise(KIB, 1)})
    found = compare(same, same)
    assert (found.fields, found.files, found.transfer.plain_bytes) == ((), (), 0)

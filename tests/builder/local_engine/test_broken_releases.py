"""A release that was broken on its way is not accepted by the golden prompt; a whole one is, in either arithmetic.

With the real engine, on a tiny model whose products are of int8, as a build makes them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgewright.manifest import GoldenPrompt, Manifest
from edgewright_builder.export.onnx import export_onnx
from edgewright_builder.local_engine.engine import local_engine, open_arithmetics
from edgewright_builder.local_engine.float32 import write_float32_tree
from edgewright_builder.local_engine.golden_prompt import golden_prompt
from tests.support.engine_releases import Release, tiny_onnx_release

PROMPTS = ("the cat sat on", "on the other hand", "in an inn", "there and then", "an another", "a hat and a")
SHARPER = 8.0  # a random model hardly prefers one token; the head's scales make its leads as large as a trained one's
Tensors = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return tiny_onnx_release(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tree(tiny_onnx: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    export_onnx(tiny_onnx.tree / "checkpoint", 4, folder, block_size=32)
    edit(
        folder,
        lambda tensors: {"lm_head.MatMul.weight_scales": SHARPER * tensors["lm_head.MatMul.weight_scales"]},
    )
    return folder


@pytest.fixture(scope="module")
def golden(tree: Path, tiny_onnx: Release, tmp_path_factory: pytest.TempPathFactory) -> GoldenPrompt:
    engines = open_arithmetics(tree, tiny_onnx.manifest, tmp_path_factory.mktemp("scratch"))
    assert len(engines) == 2
    golden = GoldenPrompt.model_validate(golden_prompt(engines, PROMPTS))
    assert golden.leads[0] > 0
    return golden


def edit(tree: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Writes other values into tensors of the graph."""
    path = tree / "engine/model.onnx"
    model = onnx.load(str(path))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    changed = change(tensors)
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            assert changed[tensor.name].shape == tensors[tensor.name].shape
            assert not np.array_equal(changed[tensor.name], tensors[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    path.with_name("model.onnx.data").unlink()
    onnx.save(model, str(path), save_as_external_data=True, location="model.onnx.data")


def answer(tree: Path, manifest: Manifest, golden: GoldenPrompt) -> tuple[int, ...]:
    with local_engine(tree, manifest) as engine:
        return engine.greedy(golden.prompt, len(golden.tokens)).tokens


def layer(number: int, projection: str, part: str) -> str:
    return f"model.layers.{number}.{projection}.MatMul.weight_{part}"


def wrong_scales(tensors: Tensors) -> Tensors:
    """One layer's scales are another matrix's rows."""
    name = layer(1, "mlp.down_proj", "scales")
    return {name: np.roll(tensors[name], 7, axis=0) * 1.5}


def a_scale_that_overflowed(tensors: Tensors) -> Tensors:
    name = layer(0, "attn.qkv_proj", "scales")
    return {
        name: np.where(np.arange(tensors[name].size).reshape(tensors[name].shape) == 3, 65504, tensors[name])
    }


def swapped_layers(tensors: Tensors) -> Tensors:
    names = [[layer(number, "attn.qkv_proj", part) for part in ("Q4", "scales")] for number in (0, 1)]
    pairs = [*zip(*names, strict=True), *zip(*reversed(names), strict=True)]
    return {mine: tensors[other] for mine, other in pairs}


def swapped_projections(tensors: Tensors) -> Tensors:
    names = [[layer(0, f"mlp.{which}_proj", part) for part in ("Q4", "scales")] for which in ("gate", "up")]
    pairs = [*zip(*names, strict=True), *zip(*reversed(names), strict=True)]
    return {mine: tensors[other] for mine, other in pairs}


def another_packing(tensors: Tensors) -> Tensors:
    """The two codes of a byte in the other order, in one layer."""
    name = layer(1, "mlp.up_proj", "Q4")
    return {name: (tensors[name] << 4) | (tensors[name] >> 4)}


def another_zero_point(tensors: Tensors) -> Tensors:
    """Codes around 7 in the place of 8, everywhere."""

    def lower(codes: NDArray[Any]) -> NDArray[Any]:
        low, high = np.maximum(codes & 15, 1) - 1, np.maximum(codes >> 4, 1) - 1
        lowered: NDArray[Any] = (high << 4 | low).astype(np.uint8)
        return lowered

    return {name: lower(codes) for name, codes in tensors.items() if name.endswith("_Q4")}


def two_bits(tensors: Tensors) -> Tensors:
    """Codes rounded to four levels, everywhere."""
    return {
        name: (codes & 0xCC | 0x22).astype(np.uint8)
        for name, codes in tensors.items()
        if name.endswith("_Q4")
    }


DAMAGES = [
    wrong_scales, a_scale_that_overflowed, swapped_layers, swapped_projections, another_packing, another_zero_point,
    two_bits,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_broken_release_is_not_accepted(
    damage: Callable[[Tensors], Tensors], tree: Path, tiny_onnx: Release, golden: GoldenPrompt, tmp_path: Path
) -> None:
    broken = tmp_path / "tree"
    shutil.copytree(tree, broken)
    edit(broken, damage)
    assert not golden.accepts(answer(broken, tiny_onnx.manifest, golden))


def test_a_whole_release_is_accepted_in_either_arithmetic(
    tree: Path, tiny_onnx: Release, golden: GoldenPrompt, tmp_path: Path
) -> None:
    for whole in (tree, write_float32_tree(tree, tmp_path)):
        assert golden.accepts(answer(whole, tiny_onnx.manifest, golden))


def test_the_second_arithmetic_is_another_one_and_leaves_the_files_alone(tree: Path, tmp_path: Path) -> None:
    before = (tree / "engine/model.onnx").read_bytes()
    wide = write_float32_tree(tree, tmp_path)
    levels = {levels_of(folder / "engine/model.onnx") for folder in (tree, wide)}
    assert levels == {frozenset({4}), frozenset({1})}
    assert (tree / "engine/model.onnx").read_bytes() == before


def levels_of(graph: Path) -> frozenset[int]:
    """The accuracy levels of all its quantized products."""
    model = onnx.load(str(graph), load_external_data=False)
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    return frozenset(each.i for node in products for each in node.attribute if each.name == "accuracy_level")

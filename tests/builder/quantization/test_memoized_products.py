"""GPTQModel's products are computed once each, and its checkpoint is the same to the last bit."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgewright_builder.quantization.gptq_process import GptqJob, GptqOptions
from edgewright_builder.quantization.memoized_products import Products
from tests.support.tiny_build import write_model

LAYER = torch.nn.Linear(8, 4)
INPUT = torch.arange(16.0).reshape(2, 8)
REPEATING = (
    "import edgewright_builder.quantization.memoized_products as r; r.install = lambda products: None; "
)
RUN = "import runpy; runpy.run_module('edgewright_builder.quantization.gptq_process', run_name='__main__')"


def remembered(bytes_max: int = 2**20) -> Products:
    products = Products(bytes_max)
    products.add(LAYER, INPUT, LAYER(INPUT))
    return products


def test_an_output_is_remembered_for_equal_inputs_and_weights() -> None:
    output = remembered().get(LAYER, INPUT.clone())

    assert output is not None
    assert torch.equal(output, LAYER(INPUT))


def other_input(products: Products) -> torch.Tensor | None:
    return products.get(LAYER, INPUT + 1)


def other_shape(products: Products) -> torch.Tensor | None:
    return products.get(LAYER, INPUT[:1])


def other_layer(products: Products) -> torch.Tensor | None:
    return products.get(torch.nn.Linear(8, 4), INPUT)


def next_decoder_layer(products: Products) -> torch.Tensor | None:
    products.clear()
    return products.get(LAYER, INPUT)


def weights_rounded_in_place(products: Products) -> torch.Tensor | None:
    layer = torch.nn.Linear(8, 4)
    products.add(layer, INPUT, layer(INPUT))
    layer.weight.data.round_()
    return products.get(layer, INPUT)


@pytest.mark.parametrize(
    "change", [other_input, other_shape, other_layer, next_decoder_layer, weights_rounded_in_place]
)
def test_nothing_is_remembered_once_anything_differs(
    change: Callable[[Products], torch.Tensor | None],
) -> None:
    assert change(remembered()) is None


def test_nothing_is_remembered_beyond_the_limit() -> None:
    assert remembered(bytes_max=64).get(LAYER, INPUT) is None


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("true_sequential", [True, False])
def test_the_checkpoint_is_the_same_to_the_last_bit(tmp_path: Path, true_sequential: bool) -> None:
    write_model(tmp_path / "model")
    numbers = random.Random(0)
    sequences = [numbers.choices(range(250), k=40 + index % 3) for index in range(20)]
    weights = []
    for name, first in (("shared", ""), ("computed-again", REPEATING)):
        folder = tmp_path / name
        folder.mkdir()
        options = GptqOptions(true_sequential=true_sequential)
        GptqJob(str(tmp_path / "model"), str(folder / "model"), 64, sequences, None, options).write(
            folder / "job.json"
        )
        subprocess.run(
            [sys.executable, "-c", first + RUN, str(folder / "job.json")], cwd=folder, check=True,
            capture_output=True,
            env=os.environ | {"GPTQMODEL_CPU_WORKERS": "2"},
        )  # fmt: skip
        weights.append((folder / "model" / "model.safetensors").read_bytes())
        assert json.loads((folder / "losses.json").read_text())["losses"]

    assert weights[0] == weights[1]

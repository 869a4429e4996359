"""AutoRound as the quantizer of a build: what it is given, what it leaves, and what it is not for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgewright.digests import digest_of
from edgewright.errors import InputError, OutsideError
from edgewright_builder.models.folder import load_model
from edgewright_builder.pipeline.preflight import check_quantizer
from edgewright_builder.quantization.autoround_process import equal_sequences, learning_rate_of
from edgewright_builder.quantization.gptq_checkpoint import load_dequantized
from edgewright_builder.recipe.model_recipe import Recipe, load_recipe
from edgewright_builder.stages.quantize import Quantization, autoround, method_inputs
from tests.support.tiny_build import write_model

RECIPE = """
name: tickets
task: arc_easy
student: {model: model}
teachers: {knowledge: {model: model}}
data: {file: data.jsonl}
quantize: {%s}
"""
SENTENCE = [5, 9, 30, 77, 12, 8, 101, 44] * 4


def quantized(model: Path, folder: Path, steps: int) -> Path:
    """The checkpoint that so many steps leave."""
    folder.mkdir()
    heard: list[tuple[Any, ...]] = []
    done = autoround(
        Quantization(model, 32, [SENTENCE] * 4), steps, 0, folder, lambda *news: heard.append(news)
    )
    assert done["method"] == "autoround"
    assert done["calibration_tokens"] == 4 * len(SENTENCE)
    assert heard[-1] == (4, 4, "layers")
    return folder / "model"


def error(checkpoint: Path, expected: torch.Tensor) -> float:
    """How far its logits are from those of 16 bits."""
    with torch.inference_mode():
        logits = load_dequantized(checkpoint, torch.float32)(torch.tensor([SENTENCE])).logits
    return float((logits - expected).norm())


@pytest.mark.timeout(300)
def test_trained_rounding_is_nearer_to_16_bits_than_one_step_leaves_it(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    with torch.inference_mode():
        expected = load_model(tmp_path / "model").float()(torch.tensor([SENTENCE])).logits
    one = quantized(tmp_path / "model", tmp_path / "one", 1)
    many = quantized(tmp_path / "model", tmp_path / "many", 20)
    assert error(many, expected) < 0.95 * error(one, expected)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_same_order_leaves_the_same_bytes(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    first, second = (quantized(tmp_path / "model", tmp_path / name, 5) for name in ("first", "second"))
    for name in ("model.safetensors", "config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=40), min_size=1, max_size=12))
def test_all_tokens_but_a_few_are_calibrated_on_in_sequences_of_one_length(
    sequences: list[list[int]],
) -> None:
    equal = equal_sequences(sequences)
    tokens = [token for sequence in sequences for token in sequence]
    kept = [token for sequence in equal for token in sequence]

    assert len({len(sequence) for sequence in equal}) == 1
    assert len(equal[0]) <= max(map(len, sequences))
    assert kept == tokens[: len(kept)]
    assert len(tokens) - len(kept) < len(sequences)


@pytest.mark.parametrize(("steps", "rate"), [(1, 5e-3), (50, 5e-3), (200, 5e-3), (1000, 1e-3)])
def test_many_steps_are_smaller_ones(steps: int, rate: float) -> None:
    assert learning_rate_of(steps) == rate


@pytest.mark.slow
def test_a_model_that_it_can_not_read_ends_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match=r"^AutoRound failed with exit code 1; its log .* ends: "):
        autoround(Quantization(tmp_path / "nothing", 32, [SENTENCE]), 1, 0, tmp_path, lambda *_: None)


def recipe_with(settings: str, folder: Path) -> Recipe:
    """The recipe with these settings of `quantize`."""
    (folder / "recipe.yaml").write_text(RECIPE % settings, encoding="utf-8")
    return load_recipe(folder / "recipe.yaml")


def test_without_the_package_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_quantizer(recipe_with("", tmp_path))
    with pytest.raises(InputError, match=r"pip install 'edgewright\[autoround\]'"):
        check_quantizer(recipe_with("method: autoround", tmp_path))


def test_method_and_steps_decide_whether_the_stage_is_run_again(tmp_path: Path) -> None:
    settings = ("", "method: autoround", "method: autoround, autoround_steps: 20")
    inputs = [method_inputs(recipe_with(text, tmp_path).quantize) for text in settings]
    assert len({digest_of(each) for each in inputs}) == 3


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ("method: autoround, delta_from: earlier", "`method: autoround` rounds all anew"),
        ("autoround_steps: 200", "`autoround_steps` has no effect with `method: gptq`"),
        ("method: awq", "method"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=complaint):
        recipe_with(settings, tmp_path)


def test_an_artifact_names_the_method_only_where_it_is_not_gptq(tmp_path: Path) -> None:
    for settings, values in (
        ("", {}),
        ("method: autoround", {"method": "autoround", "autoround_steps": 50}),
    ):
        portable = recipe_with(settings, tmp_path).portable()["quantize"]
        assert {key: portable[key] for key in ("method", "autoround_steps") if key in portable} == values

"""AutoRound as the quantizer of a build: what it is given, what it leaves, and what it is not for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from edgewright.errors import InputError, OutsideError
from edgewright_builder.models.folder import load_model
from edgewright_builder.pipeline.preflight import check_quantizer
from edgewright_builder.quantization.autoround_process import full_sequences
from edgewright_builder.quantization.gptq_checkpoint import load_dequantized
from edgewright_builder.recipe.model_recipe import load_recipe
from edgewright_builder.stages.quantize import Quantization, autoround
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


def test_only_sequences_of_the_usual_length_are_calibrated_on() -> None:
    assert full_sequences([[1, 2, 3], [4, 5], [6, 7, 8]]) == [[1, 2, 3], [6, 7, 8]]
    assert full_sequences([[4, 5]]) == [[4, 5]]


@pytest.mark.slow
def test_a_model_that_it_can_not_read_ends_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match=r"^AutoRound failed with exit code 1; its log .* ends: "):
        autoround(Quantization(tmp_path / "nothing", 32, [SENTENCE]), 1, 0, tmp_path, lambda *_: None)


def test_without_the_package_nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'edgewright\[autoround\]'"):
        check_quantizer("autoround")
    check_quantizer("gptq")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ("method: autoround, delta_from: earlier", "`method: autoround` rounds all anew"),
        ("autoround_steps: 200", "`autoround_steps` has no effect with `method: gptq`"),
        ("method: awq", "method"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE % settings, encoding="utf-8")
    with pytest.raises(InputError, match=complaint):
        load_recipe(tmp_path / "recipe.yaml")


def test_an_artifact_names_the_method_only_where_it_is_not_gptq(tmp_path: Path) -> None:
    for settings, values in (
        ("", {}),
        ("method: autoround", {"method": "autoround", "autoround_steps": 50}),
    ):
        (tmp_path / "recipe.yaml").write_text(RECIPE % settings, encoding="utf-8")
        portable = load_recipe(tmp_path / "recipe.yaml").portable()["quantize"]
        assert {key: portable[key] for key in ("method", "autoround_steps") if key in portable} == values

"""Recovery: the quantized model comes nearer to its teacher, whatever interrupts the training."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgewright_builder.quantization.frozen_codes import load_frozen_codes
from edgewright_builder.quantization.learned_rounding import changed_codes_fraction, learn_rounding
from edgewright_builder.recipe.model_recipe import RecoverSettings
from edgewright_builder.teacher_cache.hidden_states import cache_hidden_states, read_hidden_states
from edgewright_builder.train import recovery
from edgewright_builder.train.epoch import DistillationData, validation_divergence
from edgewright_builder.train.recovery import (
    RecoverySamples,
    norms,
    quantized_layers,
    recover,
    recovered_tensors,
)
from edgewright_builder.train.samples import Sample
from tests.support.tiny_gptq_checkpoint import write_quantized
from tests.support.tiny_models import tiny_model, tiny_tokenizer

SETTINGS = RecoverSettings(steps=24, batch_tokens=64, learning_rate=1e-2)
SAMPLES = [Sample(tuple((7 * row + 5 * place) % 384 for place in range(24)), 0) for row in range(20)]

KINDS = RecoverySamples(SAMPLES, range(8), range(8, 16))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_quantized(tmp_path)[0]


@pytest.fixture
def data(tmp_path: Path) -> DistillationData:
    """Eight samples for the task, eight for general text, four held out; the teacher is the model before rounding."""
    tiny_model(1).save_pretrained(tmp_path / "teacher")
    tiny_tokenizer().save_pretrained(tmp_path / "teacher")
    (tmp_path / "cache").mkdir()
    cache_hidden_states(tmp_path / "teacher", SAMPLES, 64, 0, tmp_path / "cache", lambda *_: None)
    knowledge = read_hidden_states(tmp_path / "cache", SAMPLES)
    return DistillationData(SAMPLES, (), range(16, 20), knowledge, pad_token=0)


def trained(
    checkpoint: Path, data: DistillationData, state: Path, settings: RecoverSettings = SETTINGS
) -> torch.nn.Module:
    model = quantized_model(checkpoint, settings)
    recover(model, data, KINDS.batches(settings, seed=3), settings, state, lambda *_: None)
    return model


def quantized_model(checkpoint: Path, settings: RecoverSettings) -> torch.nn.Module:
    model = load_frozen_codes(checkpoint)
    if settings.train == "rounding":
        learn_rounding(model, checkpoint.parent / "teacher")
    return model


@pytest.mark.parametrize("train", ["scales", "rounding"])
def test_recovery_brings_the_model_nearer_to_its_teacher(
    checkpoint: Path, data: DistillationData, tmp_path: Path, train: str
) -> None:
    seen = replace(data, validation=range(16))  # random weights have nothing to generalise
    before = validation_divergence(load_frozen_codes(checkpoint), seen, 64)
    settings = SETTINGS.model_copy(update={"steps": 48, "train": train})
    model = trained(checkpoint, data, tmp_path / "state.pt", settings)
    assert validation_divergence(model, seen, 64).mean < 0.8 * before.mean


@pytest.mark.parametrize("train", ["scales", "scales+norms", "rounding"])
def test_what_is_trained_is_what_the_settings_say(
    checkpoint: Path, data: DistillationData, tmp_path: Path, train: str
) -> None:
    settings = RecoverSettings.model_validate(SETTINGS.model_dump() | {"train": train})
    before = {name: gain.clone() for name, gain in norms(load_frozen_codes(checkpoint)).items()}
    model = trained(checkpoint, data, tmp_path / "state.pt", settings)
    changed = any(not torch.equal(gain, before[name]) for name, gain in norms(model).items())
    assert changed == (train == "scales+norms")
    assert (set(before) <= set(recovered_tensors(model, settings))) == changed
    assert (changed_codes_fraction(model) > 0) == (train == "rounding")


@pytest.mark.parametrize("train", ["scales", "rounding"])
def test_bfloat16_products_train_as_well_and_what_is_judged_is_float32(
    checkpoint: Path, data: DistillationData, tmp_path: Path, train: str
) -> None:
    seen = replace(data, validation=range(16))
    settings = SETTINGS.model_copy(update={"steps": 48, "train": train})
    model = quantized_model(checkpoint, settings)
    before = validation_divergence(model, seen, 64)
    batches = KINDS.batches(settings, seed=3)
    recover(model, data, batches, settings, tmp_path / "state.pt", lambda *_: None, torch.bfloat16)
    assert validation_divergence(model, seen, 64).mean < 0.8 * before.mean
    assert {layer.precision for layer in quantized_layers(model).values()} == {torch.float32}


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize("train", ["scales", "rounding"])
@pytest.mark.parametrize("at", [1, 8, 13, 24])
def test_an_interrupted_training_goes_on_to_the_same_tensors(
    checkpoint: Path,
    data: DistillationData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    train: str,
) -> None:
    monkeypatch.setattr(recovery, "STEPS_PER_SAVE_WITH_OFFSETS", 8)
    settings = RecoverSettings.model_validate(SETTINGS.model_dump() | {"train": train})
    undisturbed = trained(checkpoint, data, tmp_path / "undisturbed.pt", settings)

    def cut(step: int, _: int, __: str) -> None:
        if step == at:
            raise PowerCutError

    batches = KINDS.batches(settings, seed=3)
    with pytest.raises(PowerCutError):
        recover(quantized_model(checkpoint, settings), data, batches, settings, tmp_path / "state.pt", cut)
    resumed = trained(checkpoint, data, tmp_path / "state.pt", settings)
    expected = recovered_tensors(undisturbed, settings)
    for name, tensor in recovered_tensors(resumed, settings).items():
        assert torch.equal(tensor, expected[name]), name


def test_the_minutes_end_the_training_and_what_was_learnt_counts(
    checkpoint: Path, data: DistillationData, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"minutes_max": 1e-9})
    model = load_frozen_codes(checkpoint)
    batches = KINDS.batches(settings, seed=3)
    steps = recover(model, data, batches, settings, tmp_path / "state.pt", lambda *_: None)
    assert [step.step for step in steps] == [1]
    assert any(tensor.abs().max() > 0 for tensor in recovered_tensors(model, settings).values())


@pytest.mark.parametrize(("share", "general"), [(0.0, 0), (0.25, 4), (0.5, 8), (1.0, 16)])
def test_steps_are_shared_between_the_task_and_general_text(share: float, general: int) -> None:
    settings = SETTINGS.model_copy(update={"general_share": share, "steps": 16})
    batches = KINDS.batches(settings, seed=0)
    kinds = Counter("general" if batch[0] in KINDS.general else "pairs" for batch in batches)
    assert kinds["general"] == general
    assert len(batches) == 16


def test_without_general_text_every_step_is_the_task_s() -> None:
    batches = replace(KINDS, general=()).batches(SETTINGS, seed=0)
    assert all(index in KINDS.pairs for batch in batches for index in batch)

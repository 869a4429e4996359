"""Distillation on a Llama of a few thousand weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgewright.errors import InputError, RefusedError
from edgewright_builder.quantization.rounding import fake_quantize, temporarily_quantized
from edgewright_builder.recipe.hyperparameters import Hyperparameters, Optimizer, SearchSpace, TrialSettings
from edgewright_builder.recipe.model_recipe import FinetuneSettings, SearchSettings
from edgewright_builder.run.resumable_run import FinishedStage
from edgewright_builder.stages.finetune import finetune, kl_to_teacher
from edgewright_builder.stages.search import search
from edgewright_builder.stages.student import block_influence, least_influential, remove_layers
from edgewright_builder.teacher_cache.hidden_states import cache_hidden_states, read_hidden_states
from edgewright_builder.train.epoch import (
    DistillationData,
    Training,
    divergences_to,
    logits_divergences,
    train_epoch,
    validation_divergence,
    validation_loss,
)
from edgewright_builder.train.loop import TrainStep
from edgewright_builder.train.lora import add_lora, linear_layers, merge_lora
from edgewright_builder.train.packing import pack
from edgewright_builder.train.samples import Sample, make_batches, make_sample, split
from edgewright_builder.train.teacher_knowledge import HiddenStates
from tests.support.tiny_models import tiny_model, tiny_tokenizer

BATCH_TOKENS = 128
FINETUNE = FinetuneSettings(batch_tokens=BATCH_TOKENS)
ADAM = Hyperparameters("adam", 5e-3, 0.0, 8, 2.0, 1.0, 1.0)


def samples() -> list[Sample]:
    """Sixteen pairs in the tiny chat template."""
    pairs = [
        {"instruction": f"Why is {a} {b}?", "output": f"{b} light and {a} air."}
        for a in "abcd"
        for b in "wxyz"
    ]
    made = [make_sample(tiny_tokenizer(), pair, "response", 64) for pair in pairs]
    return [sample for sample in made if sample is not None]


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of a student and of a teacher with other weights."""
    for name, seed in (("student", 1), ("teacher", 2)):
        tiny_model(seed).save_pretrained(tmp_path / name)
        tiny_tokenizer().save_pretrained(tmp_path / name)
    return tmp_path / "student", tmp_path / "teacher"


@pytest.fixture
def data(models: tuple[Path, Path], tmp_path: Path) -> DistillationData:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache_hidden_states(models[1], samples(), BATCH_TOKENS, 0, cache, lambda *_: None)
    train, validation = split(samples(), 0.25, seed=0)
    return DistillationData(samples(), train, validation, read_hidden_states(cache, samples()), pad_token=0)


def training(
    data: DistillationData,
    settings: FinetuneSettings = FINETUNE,
    on_progress: Callable[..., None] = lambda *_: None,
) -> Training:
    return Training(data, settings, 0, on_progress)


def load(folder: Path) -> Any:
    from edgewright_builder.models.folder import load_model

    return load_model(folder)


def test_only_the_answers_tokens_count_and_each_position_predicts_the_next() -> None:
    pair = {"instruction": "Why?", "input": "", "output": "light"}
    sample = make_sample(tiny_tokenizer(), pair, "response", 64)
    assert sample is not None
    batch = pack([sample], [0], torch.device("cpu"), torch.float32)
    assert tiny_tokenizer().decode(batch.labels) == "light<|end|>"
    assert len(batch.counted) == sample.counted_tokens == len(batch.labels)


def test_a_pair_cut_to_its_prompt_teaches_nothing() -> None:
    assert (
        make_sample(tiny_tokenizer(), {"instruction": "Why is it so?", "output": "light"}, "response", 4)
        is None
    )


@given(
    st.lists(st.integers(2, 60), min_size=1, max_size=40), st.integers(16, 200), st.none() | st.integers(0, 9)
)
def test_batches_hold_every_sample_once_and_stay_within_their_tokens(
    lengths: list[int], batch_tokens: int, seed: int | None
) -> None:
    made = [Sample(tuple(range(length)), 0) for length in lengths]
    batches = make_batches(made, range(len(made)), batch_tokens, seed)
    assert sorted(index for batch in batches for index in batch) == list(range(len(made)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= batch_tokens


@given(st.integers(2, 300), st.floats(0.0, 1.0, exclude_min=True, exclude_max=True), st.integers(0, 5))
@example(10, 0.96, 0)
@example(2, 0.8, 0)
def test_a_split_is_disjoint_complete_and_repeatable(count: int, fraction: float, seed: int) -> None:
    made = [Sample((1, 2), 0)] * count
    train, validation = split(made, fraction, seed)
    assert sorted(train + validation) == list(range(count))
    assert train
    assert validation
    assert split(made, fraction, seed) == (train, validation)


@given(st.integers(0, 2**20), st.sampled_from([4, 8]))
@settings(max_examples=20, deadline=None)
def test_rounding_moves_a_weight_by_half_a_step_at_most(seed: int, bits: int) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(6, 64)
    rounded = fake_quantize(weight, bits, group_size=32)
    step = weight.reshape(6, 2, 32).abs().amax(-1, keepdim=True) * 2 / (2**bits - 1)
    assert float(((rounded - weight).reshape(6, 2, 32).abs() / step).max()) <= 0.5 + 1e-4
    assert len(set(rounded[0, :32].tolist())) <= 2**bits


def test_weights_are_rounded_only_inside_the_block() -> None:
    modules = linear_layers(tiny_model(3))
    before = {name: module.weight.clone() for name, module in modules.items()}
    with temporarily_quantized(modules, 4, 32):
        assert any(not torch.equal(before[name], module.weight) for name, module in modules.items())
    assert all(torch.equal(before[name], module.weight) for name, module in modules.items())


def test_the_cache_gives_back_the_teachers_hidden_states(
    models: tuple[Path, Path], data: DistillationData
) -> None:
    teacher = load(models[1])
    assert isinstance(data.knowledge, HiddenStates)
    for index in (0, 7):
        sample = data.samples[index]
        with torch.inference_mode():
            hidden = teacher.model(input_ids=torch.tensor([sample.tokens])).last_hidden_state[
                0, sample.first : -1
            ]
        torch.testing.assert_close(data.knowledge.hidden_of(index), hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(data.knowledge.head.weight, teacher.lm_head.weight.detach())


@pytest.mark.parametrize("kept_fraction", [0.0, 0.4, 0.99])
def test_a_cache_cut_short_is_completed_to_the_same_bytes(
    models: tuple[Path, Path], tmp_path: Path, kept_fraction: float
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    cache_hidden_states(models[1], samples(), BATCH_TOKENS, 0, whole, lambda *_: None)
    complete = (whole / "hidden.bin").read_bytes()
    (cut / "hidden.bin").write_bytes(complete[: int(kept_fraction * len(complete))])
    cache_hidden_states(models[1], samples(), BATCH_TOKENS, 0, cut, lambda *_: None)
    assert (cut / "hidden.bin").read_bytes() == complete


def test_training_brings_the_student_closer_and_merging_changes_nothing(
    models: tuple[Path, Path], data: DistillationData
) -> None:
    model = load(models[0])
    before = validation_divergence(model, data, BATCH_TOKENS)
    adapted: Any = add_lora(model, ADAM, seed=0)
    for _ in range(4):
        train_epoch(adapted, training(data), ADAM, lambda _: None)
    trained = validation_divergence(adapted.base_model.model, data, BATCH_TOKENS)
    merged = validation_divergence(merge_lora(adapted), data, BATCH_TOKENS)
    assert trained.mean < 0.9 * before.mean
    assert merged.mean == pytest.approx(trained.mean, rel=1e-3)
    assert 0 < merged.standard_error < merged.mean


def test_epochs_are_passes_over_the_data_in_other_orders(
    models: tuple[Path, Path], data: DistillationData
) -> None:
    steps: list[TrainStep] = []
    twice = replace(ADAM, epochs=2)
    train_epoch(add_lora(load(models[0]), twice, seed=0), training(data), twice, steps.append)
    once = sum(data.samples[index].counted_tokens for index in data.train)
    assert steps[-1].tokens == 2 * once
    orders = [make_batches(samples(), data.train, BATCH_TOKENS, seed) for seed in (0, 1)]
    assert len(steps) == sum(map(len, orders))
    assert orders[0] != orders[1]


def test_where_labels_alone_teach_their_cross_entropy_is_told_and_not_the_way_from_the_teacher(
    models: tuple[Path, Path], data: DistillationData, tmp_path: Path
) -> None:
    how = replace(ADAM, alpha=0.0)
    summary = finetune(models[0], training(data), TrialSettings(how, group_size=32), tmp_path)
    assert set(summary) == {"cross_entropy_before", "cross_entropy_after", "tokens"}
    expected = validation_loss(load(tmp_path / "model"), data, how, BATCH_TOKENS)
    assert summary["cross_entropy_after"] == pytest.approx(expected, rel=1e-4)
    assert summary["cross_entropy_after"] < summary["cross_entropy_before"]
    finetuned = FinishedStage("finetune", tmp_path, "", 0.0, summary)
    assert kl_to_teacher(finetuned) == pytest.approx(
        validation_divergence(load(tmp_path / "model"), data, BATCH_TOKENS).mean, rel=1e-4
    )


def test_without_an_epoch_the_student_stays_as_it_is(
    models: tuple[Path, Path], data: DistillationData, tmp_path: Path
) -> None:
    choice = TrialSettings(replace(ADAM, epochs=0), group_size=32)
    summary = finetune(models[0], training(data), choice, tmp_path)
    assert summary["kl_after"] == pytest.approx(summary["kl_before"], rel=1e-5)
    assert summary["tokens"] == 0
    before, after = load(models[0]).state_dict(), load(tmp_path / "model").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_every_optimizer_takes_every_step_once_and_brings_the_student_closer(
    models: tuple[Path, Path], data: DistillationData, optimizer: Optimizer
) -> None:
    settings = replace(ADAM, optimizer=optimizer, epochs=3)
    model = load(models[0])
    before = validation_divergence(model, data, BATCH_TOKENS)
    adapted: Any = add_lora(model, settings, seed=0)
    steps: list[TrainStep] = []
    train_epoch(adapted, training(data), settings, steps.append)
    assert [step.step for step in steps] == list(range(1, steps[-1].steps + 1))
    assert validation_divergence(adapted.base_model.model, data, BATCH_TOKENS).mean < before.mean


def test_a_loss_that_is_not_finite_stops_the_training(
    models: tuple[Path, Path], data: DistillationData
) -> None:
    wild = replace(ADAM, learning_rate=1e30)
    adapted = add_lora(load(models[0]), wild, seed=0)
    with pytest.raises(InputError, match="lower the learning rate, which is 1"):
        train_epoch(adapted, training(data), wild, lambda _: None)


def test_a_layer_that_changes_nothing_has_no_influence() -> None:
    model = load_copy(4)
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
    influence = block_influence(model, samples(), lambda *_: None)
    assert influence[0] == pytest.approx(0, abs=1e-6)
    assert influence[1] > 0.01


def load_copy(seed: int) -> Any:
    """A model of one's own to change."""
    import copy

    return copy.deepcopy(tiny_model(seed))


def test_the_first_and_the_last_layer_always_stay() -> None:
    assert least_influential([0.0, 0.3, 0.1, 0.2, 0.0], 2) == [2, 3]


def test_removing_a_layer_the_model_lacks_is_refused() -> None:
    with pytest.raises(InputError, match="names layer 5; the model has layers 0 to 1"):
        remove_layers(load_copy(5), [5])


class KilledError(Exception):
    """In place of SIGKILL."""


def run_search(student: Path, data: DistillationData, folder: Path, die_at: int | None = None) -> Any:
    folder.mkdir(exist_ok=True)
    space = SearchSpace.model_validate({"lora_rank": [8, 16], "learning_rate": [1e-4, 1e-2]})
    settings = SearchSettings(trials=4, startup_trials=2, space=space)
    steps = 0

    def on_progress(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == die_at:
            raise KilledError

    return search(student, training(data, on_progress=on_progress), settings, [32], folder)


def test_a_search_whose_every_trial_diverges_says_so_and_records_them(
    models: tuple[Path, Path], data: DistillationData, tmp_path: Path
) -> None:
    settings = SearchSettings(
        trials=2, space=SearchSpace.model_validate({"learning_rate": [10.0, 100.0], "lora_scale": [90, 100]})
    )
    wild = FINETUNE.model_copy(update={"batch_tokens": 32, "warmup_fraction": 0.0})
    with pytest.raises(RefusedError, match="Every trial diverged"):
        search(models[0], training(data, wild), settings, [32], tmp_path)
    trials = json.loads((tmp_path / "trials.json").read_text(encoding="utf-8"))
    assert [(trial["state"], trial["value"]) for trial in trials] == [("diverged", None)] * 2


@pytest.mark.parametrize("die_at", [1, 4, 6, 8])
def test_a_search_killed_anywhere_finds_what_an_undisturbed_one_finds(
    models: tuple[Path, Path], data: DistillationData, tmp_path: Path, die_at: int
) -> None:
    whole = run_search(models[0], data, tmp_path / "whole")
    with pytest.raises(KilledError):
        run_search(models[0], data, tmp_path / "killed", die_at)
    assert run_search(models[0], data, tmp_path / "killed") == whole
    assert (tmp_path / "killed" / "best.json").read_bytes() == (tmp_path / "whole" / "best.json").read_bytes()


def test_several_teachers_are_compared_from_one_pass_of_the_model(
    models: tuple[Path, Path], data: DistillationData
) -> None:
    model = load(models[0])
    knowledge = data.knowledge
    assert isinstance(knowledge, HiddenStates)
    hidden_of, head = knowledge.hidden_of, knowledge.head
    other = replace(data, knowledge=HiddenStates(lambda index: hidden_of(index).flip(0), head))
    alone = [validation_divergence(model, one, BATCH_TOKENS) for one in (data, other)]
    teachers = [knowledge, other.knowledge]
    assert divergences_to(teachers, model, data, BATCH_TOKENS) == alone

    def logits_of(index: int) -> torch.Tensor:
        sample = data.samples[index]
        logits: torch.Tensor = model(input_ids=torch.tensor([sample.tokens])).logits[0, sample.first : -1]
        return logits

    for one, expected in zip(logits_divergences(teachers, logits_of, data), alone, strict=True):
        assert one.tokens == expected.tokens
        assert one.mean == pytest.approx(expected.mean, rel=1e-4)

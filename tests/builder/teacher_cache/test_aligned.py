"""A teacher of another vocabulary: what it reads, where it is compared, and what is learned from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from edgewright_builder.alignment.projection import project
from edgewright_builder.models.folder import load_model, read_config
from edgewright_builder.recipe.hyperparameters import Hyperparameters
from edgewright_builder.recipe.model_recipe import FinetuneSettings
from edgewright_builder.teacher_cache.aligned_samples import (
    AlignedSamples,
    Reader,
    align_samples,
    read_tokenizer,
)
from edgewright_builder.teacher_cache.aligned_states import Method, read_aligned_states, write_alignment
from edgewright_builder.teacher_cache.hidden_states import cache_hidden_states, read_hidden_states
from edgewright_builder.train.epoch import (
    DistillationData,
    Training,
    train_epoch,
    validation_divergence,
    validation_loss,
)
from edgewright_builder.train.lora import add_lora
from edgewright_builder.train.samples import split
from tests.support.two_vocabularies import (
    PAIRS,
    TwoModels,
    samples_of,
    student_tokenizer,
    teacher_tokenizer,
    write_models,
)

ADAM = Hyperparameters("adam", 5e-3, 0.0, 8, 2.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> TwoModels:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def readers(models: TwoModels) -> tuple[Reader, Reader]:
    return read_tokenizer(models.student, "student"), read_tokenizer(models.teacher, "teacher")


def aligned(
    readers: tuple[Reader, Reader], loss_on: Literal["response", "sequence"] = "response"
) -> AlignedSamples:
    return align_samples(*readers, PAIRS, samples_of(readers[0].tokenizer, loss_on=loss_on), loss_on)


def cached(
    models: TwoModels, readers: tuple[Reader, Reader], method: Method, folder: Path
) -> DistillationData:
    """The cache as the stage writes it, read back."""
    folder.mkdir(exist_ok=True)
    found = aligned(readers)
    rows = [read_config(path)["vocab_size"] for path in (models.student, models.teacher)]
    projection = project(readers[0].vocabulary, readers[1].vocabulary, found.ends, (rows[0], rows[1]))
    write_alignment(found.samples, projection, method, folder)
    cache_hidden_states(
        models.teacher, [one.teacher for one in found.samples], 128, 0, folder, lambda *_: None
    )
    samples = samples_of(readers[0].tokenizer)
    train, validation = split(samples, 0.25, seed=0)
    return DistillationData(samples, train, validation, read_aligned_states(folder, samples), pad_token=0)


@pytest.mark.parametrize("loss_on", ["response", "sequence"])
def test_each_model_reads_the_dialogue_in_its_own_template_and_they_meet_at_equal_text(
    readers: tuple[Reader, Reader], loss_on: Literal["response", "sequence"]
) -> None:
    found = aligned(readers, loss_on)
    for pair, sample, one in zip(
        PAIRS, samples_of(readers[0].tokenizer, loss_on=loss_on), found.samples, strict=True
    ):
        theirs = readers[1].tokenizer.decode(one.teacher.tokens[:-1])
        assert theirs.startswith("<s><turn>user\n")
        for ours, other in zip(one.student_positions, one.teacher_positions, strict=True):
            assert 0 <= ours < sample.counted_tokens
            assert 0 <= other < one.teacher.counted_tokens
            read = readers[0].tokenizer.decode(sample.tokens[: sample.first + ours + 1])
            their_read = readers[1].tokenizer.decode(one.teacher.tokens[: one.teacher.first + other + 1])
            if pair["output"] in read:
                assert pair["output"] in their_read
            else:
                assert read.rsplit("<|assistant|>", 1)[-1] == their_read.rsplit("assistant\n", 1)[-1] or (
                    loss_on == "sequence"
                )


def test_the_answers_first_token_and_its_end_are_compared(readers: tuple[Reader, Reader]) -> None:
    found = aligned(readers)
    for sample, one in zip(samples_of(readers[0].tokenizer), found.samples, strict=True):
        assert one.student_positions[0] == 0
        last = sample.tokens[sample.first + one.student_positions[-1] + 1]
        assert last == readers[0].tokenizer.eos_token_id
    assert readers[0].tokenizer.eos_token_id in found.ends.student
    assert readers[1].tokenizer.eos_token_id in found.ends.teacher


def test_the_share_says_what_is_compared_and_what_is_cut_alike(readers: tuple[Reader, Reader]) -> None:
    share = aligned(readers).share
    assert share.tokens == sum(sample.counted_tokens for sample in samples_of(readers[0].tokenizer))
    assert 0 < share.equal < share.compared < share.tokens
    assert share.folded > 0


def test_a_teacher_without_a_chat_template_begins_with_the_token_that_begins_texts(
    readers: tuple[Reader, Reader], tmp_path: Path
) -> None:
    plain = teacher_tokenizer(template=None)
    from tokenizers.processors import TemplateProcessing

    plain.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", plain.bos_token_id)]
    )
    reader = replace(readers[1], tokenizer=plain)
    assert reader.begins_with == "<s>"
    found = align_samples(readers[0], reader, PAIRS, samples_of(readers[0].tokenizer), "response")
    assert all(one.teacher.tokens[0] == plain.bos_token_id for one in found.samples)


@pytest.mark.parametrize("method", ["projected", "uld"])
def test_training_brings_the_student_closer_to_a_teacher_of_another_vocabulary(
    models: TwoModels, readers: tuple[Reader, Reader], tmp_path: Path, method: Method
) -> None:
    data = cached(models, readers, method, tmp_path / method)
    training = Training(data, FinetuneSettings(batch_tokens=128), 0, lambda *_: None)
    model: Any = load_model(models.student)
    before = validation_loss(model, data, ADAM, 128)
    adapted: Any = add_lora(model, ADAM, seed=0)
    for _ in range(4):
        train_epoch(adapted, training, ADAM, lambda _: None)
    assert validation_loss(adapted.base_model.model, data, ADAM, 128) < 0.95 * before


def test_a_teacher_forced_through_the_projection_teaches_what_the_shared_vocabulary_does(
    models: TwoModels, readers: tuple[Reader, Reader], tmp_path: Path
) -> None:
    """(d) of the comparison of teachers: the same teacher both ways, from its tokenizer to the trained weights."""
    twins = TwoModels(models.student, models.student)
    forced = cached(twins, (readers[0], readers[0]), "projected", tmp_path / "forced")
    (tmp_path / "shared").mkdir()
    samples = samples_of(readers[0].tokenizer)
    cache_hidden_states(models.student, samples, 128, 0, tmp_path / "shared", lambda *_: None)
    shared = replace(forced, knowledge=read_hidden_states(tmp_path / "shared", samples))
    student = models.student.parent / "other"
    if not student.exists():
        from tests.support.two_vocabularies import write_model

        write_model(student, student_tokenizer(), 5, 432)
    weights = []
    for data in (shared, forced):
        training = Training(data, FinetuneSettings(batch_tokens=128), 0, lambda *_: None)
        hyperparameters = replace(ADAM, alpha=0.7, temperature=2.0)
        adapted: Any = add_lora(load_model(student), hyperparameters, seed=0)
        train_epoch(adapted, training, hyperparameters, lambda _: None)
        divergence = validation_divergence(adapted.base_model.model, data, 128)
        weights.append((divergence, [value.detach() for value in adapted.parameters()]))
    assert weights[1][0].mean == pytest.approx(weights[0][0].mean, rel=1e-4)
    assert weights[1][0].tokens == weights[0][0].tokens
    for ours, theirs in zip(weights[0][1], weights[1][1], strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-5)


def test_an_alignment_is_the_same_bytes_each_time(readers: tuple[Reader, Reader], tmp_path: Path) -> None:
    found, files = aligned(readers), []
    projection = project(readers[0].vocabulary, readers[1].vocabulary, found.ends, (432, 704))
    for name in "ab":
        (tmp_path / name).mkdir()
        write_alignment(found.samples, projection, "projected", tmp_path / name)
        files.append((tmp_path / name / "alignment.safetensors").read_bytes())
    assert files[0] == files[1]

"""The stage `teacher`: T2 reads the samples once, and what it says of them stays on disk.

Its hidden states are kept in the student's own tokens where the two share a vocabulary, else in its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import InputError
from edgewright_builder.teacher_cache.source import source_of

if TYPE_CHECKING:
    from edgewright_builder.run.distillation_inputs import Distillation
    from edgewright_builder.run.resumable_run import FinishedStage
    from edgewright_builder.train.epoch import Training
    from edgewright_builder.train.samples import Sample


def run_teacher(job: Distillation, data: FinishedStage) -> FinishedStage:
    """Runs the stage, or keeps what it left. Its products depend on the source of T2's knowledge. Resumable."""
    source = source_of(job)

    def work(folder: Path) -> dict[str, Any]:
        pairs, samples = pairs_and_samples(job, data)
        if lost := _lost_line(samples, data.summary["pairs"], job.recipe.finetune.sequence_tokens):
            job.run.reporter.note(lost)
        return source.write(pairs, samples, pad_token(job), folder) | _comparison(job)

    return job.run.stage("teacher", teacher_inputs(job, data), work, products=source.products, resumable=True)


def teacher_inputs(job: Distillation, data: FinishedStage) -> dict[str, Any]:
    """Returns what decides what T2 says."""
    finetune = job.recipe.finetune
    return {
        "teacher": job.teacher_digest,
        "data": data.output_digest,
        "tokenizer": job.student_digest,
        "samples": [finetune.loss_on, finetune.sequence_tokens, finetune.batch_tokens],
        **source_of(job).inputs,
    }


def _comparison(job: Distillation) -> dict[str, Any]:
    """Returns how the student is held against T2, which says what every divergence from it is."""
    served = job.served_teacher
    return {"alignment": job.alignment, **({} if served is None else {"top_k": served.top_k})}


def samples_of(job: Distillation, data: FinishedStage) -> list[Sample]:
    """Returns the data as token sequences in the student's chat template. Raises InputError for fewer than 2."""
    return pairs_and_samples(job, data)[1]


def sample_inputs(job: Distillation) -> dict[str, Any]:
    """Returns what decides the samples besides data and tokenizer: which pairs are left, and where they are cut."""
    finetune = job.recipe.finetune
    left_out = {} if finetune.loss_on == "response" else {"loss_on": finetune.loss_on}
    return {"sequence_tokens": finetune.sequence_tokens, **left_out}


def pairs_and_samples(job: Distillation, data: FinishedStage) -> tuple[list[dict[str, Any]], list[Sample]]:
    """Returns the pairs that something can be learned from, and each as the student's tokens.

    Raises InputError for fewer than 2.
    """
    from edgewright_builder.models.folder import load_tokenizer
    from edgewright_builder.train.samples import make_sample

    tokenizer, finetune = load_tokenizer(job.student), job.recipe.finetune
    lines = (data.folder / "data.jsonl").read_text(encoding="utf-8").split("\n")
    pairs = [json.loads(line) for line in lines if line]
    samples = (make_sample(tokenizer, pair, finetune.loss_on, finetune.sequence_tokens) for pair in pairs)
    usable = [(pair, sample) for pair, sample in zip(pairs, samples, strict=True) if sample is not None]
    if len(usable) < 2:
        raise InputError(
            f"{len(usable)} of {len(pairs)} pairs keep an answer within `finetune.sequence_tokens` = "
            f"{finetune.sequence_tokens}; at least 2 are needed, one to train on and one to validate."
        )
    return [pair for pair, _ in usable], [sample for _, sample in usable]


def _lost_line(samples: Sequence[Sample], pairs: int, sequence_tokens: int) -> str:
    """Returns a sentence on what the longest sequence costs; empty if every pair is learned whole."""
    left_out = pairs - len(samples)
    cut = sum(len(sample.tokens) == sequence_tokens for sample in samples)
    if not left_out and not cut:
        return ""
    return (
        f"`finetune.sequence_tokens` = {sequence_tokens}: of {pairs} pairs {left_out} have no answer within it and are "
        f"left out, {cut} reach it and may be cut"
    )


def training_of(job: Distillation, data: FinishedStage, teacher: FinishedStage) -> Training:
    """Returns what every training of this build shares: samples, their split, and what T2 knows."""
    from edgewright_builder.train.epoch import DistillationData, Training
    from edgewright_builder.train.samples import split

    finetune, seed = job.recipe.finetune, job.recipe.seed
    samples = samples_of(job, data)
    train, validation = split(samples, finetune.validation_fraction, seed)
    knowledge = source_of(job).read(teacher.folder, samples)
    material = DistillationData(samples, train, validation, knowledge, pad_token(job))
    return Training(
        material, finetune, seed if finetune.seed is None else finetune.seed, job.run.reporter.step
    )


def pad_token(job: Distillation) -> int:
    """Returns the token that fills batches up; what it is makes no difference."""
    from edgewright_builder.models.folder import load_tokenizer

    tokenizer = load_tokenizer(job.student)
    token = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(token or 0)

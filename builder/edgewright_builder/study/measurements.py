"""The stages that only a study has: how far 4 bits are from 16 bits, and how large the activations' outliers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.durable import write_json
from edgewright_builder.stages.evaluate import (
    EvaluatedModel,
    open_checkpoint,
    open_gptq_checkpoint,
    run_evaluate,
)
from edgewright_builder.stages.general_text import general_digest, general_samples, split_general
from edgewright_builder.stages.teacher import pad_token, sample_inputs, samples_of

if TYPE_CHECKING:
    from torch import nn

    from edgewright_builder.run.build_definition import Build
    from edgewright_builder.run.resumable_run import FinishedStage
    from edgewright_builder.train.epoch import DistillationData
    from edgewright_builder.train.samples import Sample

BATCH_TOKENS = 1024
MODEL = "model"  # the one that an evaluation is of


def run_divergence(
    build: Build, data: FinishedStage, finetuned: FinishedStage, shipped: FinishedStage
) -> FinishedStage:
    """Runs the stage, or keeps what it left: KL(16 bits ‖ 4 bits), in nats per token, on held-out pairs and text."""
    models = {"finetuned": finetuned.output_digest, "shipped": shipped.output_digest}
    inputs = {**models, **_text_inputs(build, data)}

    def work(folder: Path) -> dict[str, Any]:
        return divergence(build, data, finetuned.folder / "model", shipped.folder / "model", folder)

    return build.run.stage("divergence", inputs, work, products=("divergence.json",))


def divergence(
    build: Build, data: FinishedStage, finetuned: Path, shipped: Path, folder: Path
) -> dict[str, Any]:
    """Writes `divergence.json` and returns what it holds."""
    from edgewright_builder.models.folder import load_model
    from edgewright_builder.quantization.gptq_checkpoint import load_dequantized
    from edgewright_builder.train.epoch import validation_divergence

    texts = _held_out(build, data)
    sixteen = load_model(finetuned)
    towards = {
        name: _towards(sixteen, samples, pad_token(build.distillation)) for name, samples in texts.items()
    }
    four = load_dequantized(shipped)
    values: dict[str, Any] = {}
    for name, material in towards.items():
        result = validation_divergence(four, material, BATCH_TOKENS)
        values |= {f"kl_{name}": result.mean, f"kl_{name}_standard_error": result.standard_error}
    write_json(folder / "divergence.json", values)
    return values


def _text_inputs(build: Build, data: FinishedStage) -> dict[str, Any]:
    """Returns what decides which text is held out: the part of a fingerprint that every measurement on it needs."""
    return {
        "data": data.output_digest,
        "general": general_digest(build.recipe.recover.data),
        **sample_inputs(build.distillation),
        "validation_fraction": build.recipe.finetune.validation_fraction,
        "seed": build.recipe.seed,
    }


def _held_out(build: Build, data: FinishedStage) -> dict[str, list[Sample]]:
    """Returns the held-out pairs and the held-out general text; every token counts."""
    from edgewright_builder.train.samples import split

    recipe, job = build.recipe, build.distillation
    pairs = [replace(sample, first=0) for sample in samples_of(job, data)]
    general = general_samples(job.student, recipe.recover.data, recipe.finetune.sequence_tokens)
    _, held_out_pairs = split(pairs, recipe.finetune.validation_fraction, recipe.seed)
    _, held_out_general = split_general(general, recipe.seed)
    return {
        "pairs": [pairs[index] for index in held_out_pairs],
        "general": [general[index] for index in held_out_general],
    }


def _towards(model: nn.Module, samples: Sequence[Sample], pad: int) -> DistillationData:
    """Returns the samples with `model` as their teacher, all of them held out."""
    from edgewright_builder.train.epoch import DistillationData, knowledge_of

    indices = range(len(samples))
    return DistillationData(samples, (), indices, knowledge_of(model, samples, indices, pad), pad)


def run_outliers(
    build: Build, data: FinishedStage, student: FinishedStage, finetuned: FinishedStage
) -> FinishedStage:
    """Runs the stage, or keeps what it left: the outliers of activations before and after fine-tuning."""
    models = {"student": student.output_digest, "finetuned": finetuned.output_digest}
    inputs = {**models, **_text_inputs(build, data)}

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.models.folder import load_model
        from edgewright_builder.study.outliers import outliers

        samples = _held_out(build, data)["pairs"]
        before = outliers(load_model(student.folder / "model"), samples)
        after = outliers(load_model(finetuned.folder / "model"), samples)
        values = {
            "kurtosis_before": before.kurtosis,
            "kurtosis_after": after.kurtosis,
            "max_to_median_before": before.max_to_median,
            "max_to_median_after": after.max_to_median,
        }
        write_json(folder / "outliers.json", values)
        return values

    return build.run.stage("outliers", inputs, work, products=("outliers.json",))


def run_accuracies(build: Build, model: FinishedStage, *, quantized: bool) -> FinishedStage:
    """Runs the stage, or keeps what it left: a model's accuracy on the recipe's tasks.

    The 16-bit model has a stage of its own, so that cells which differ in quantization share it.
    """
    checkpoint = model.folder / "model"
    opened = partial(open_gptq_checkpoint if quantized else open_checkpoint, checkpoint)
    models = [EvaluatedModel(MODEL, model.output_digest, opened)]
    inputs = {"model": model.output_digest, "quiz": build.recipe.evaluate.quiz}
    return run_evaluate(build.distillation, models, inputs)

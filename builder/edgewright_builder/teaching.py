"""The stages that make what a student learns from, model or adapter: the data, then what the teacher says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgewright.digests import file_sha256
from edgewright.errors import InputError
from edgewright_builder.models import model_digest, resolve_model
from edgewright_builder.recipe.model import Recipe
from edgewright_builder.run.build import Build
from edgewright_builder.run.run import Stage


def _digests(folder: Path | None, pattern: str) -> list[list[str]]:
    """What the files of `pattern` in `folder` are called and hold."""
    if folder is None:
        return []
    return [[path.parent.name, path.name, file_sha256(path)] for path in sorted(folder.glob(pattern))]


def run_data(job: Build) -> Stage:
    """Stage 1."""
    recipe, data = job.recipe, job.recipe.data
    benchmarks = recipe.evaluate.benchmarks
    inputs = {"data": data.model_dump(exclude={"file"}), "task": recipe.task, "seed": recipe.seed}
    inputs["contamination"] = _digests(benchmarks, "*/eval.jsonl")
    inputs["prompts"] = _digests(data.prompts, "*.txt")
    if data.file is not None:
        inputs["file"] = file_sha256(data.file) if data.file.is_file() else str(data.file)
    elif recipe.teachers.data is not None:
        inputs["teacher"] = recipe.teachers.data.model_dump()

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.data import generate_data, import_data

        settings = data_settings(recipe)
        if data.file is not None:
            result = import_data(data.file, settings, folder, benchmarks=benchmarks)
        else:
            from edgewright_builder.data.presets import load_preset
            from edgewright_builder.data.prompts import load_prompts

            preset = load_preset(data.preset or recipe.task)
            with _data_teacher(recipe) as client:
                result = generate_data(
                    client, preset, load_prompts(data.prompts), settings, folder,
                    benchmarks=benchmarks, on_progress=job.run.reporter.step,
                )  # fmt: skip
        return {"pairs": result.rows, "attrition": result.attrition}

    return job.run.stage("data", inputs, work, products=("data.jsonl",), resumable=True)


def data_settings(recipe: Recipe) -> Any:
    """How the data is made and filtered."""
    from edgewright_builder.data.client import Sampling
    from edgewright_builder.data.self_instruct import DataSettings

    data = recipe.data
    return DataSettings(
        pairs=data.pairs,
        seed=recipe.seed,
        batch_size=recipe.teachers.data.batch_size if recipe.teachers.data else 1,
        sampling=Sampling(data.temperature, data.top_p),
        critic=data.critic,
        minimum_score=data.minimum_score,
        minimum_relevance=data.minimum_relevance,
    )


@contextmanager
def _data_teacher(recipe: Recipe) -> Iterator[Any]:
    """T1: an endpoint, or a local model that is let go of at the end."""
    teacher = recipe.teachers.data
    assert teacher is not None, "the recipe's own check"
    if teacher.endpoint is not None:
        from edgewright_builder.data.endpoint import EndpointClient

        yield EndpointClient(teacher.endpoint, teacher.model, teacher.api_key_env or "OPENAI_API_KEY")
        return
    from edgewright_builder.data.local import LocalClient
    from edgewright_builder.models import load_model, load_tokenizer

    folder = resolve_model(teacher.model)
    yield LocalClient(load_model(folder), load_tokenizer(folder), model_digest(folder))


def samples_of(job: Build, data: Stage) -> list[Any]:
    """The data as token sequences of the student's chat template."""
    from edgewright_builder.models import load_tokenizer
    from edgewright_builder.train.samples import make_sample

    tokenizer, finetune = load_tokenizer(job.base), job.recipe.finetune
    lines = (data.folder / "data.jsonl").read_text(encoding="utf-8").split("\n")
    pairs = [json.loads(line) for line in lines if line]
    samples = (make_sample(tokenizer, pair, finetune.loss_on, finetune.sequence_tokens) for pair in pairs)
    usable = [sample for sample in samples if sample is not None]
    if len(usable) < 2:
        raise InputError(
            f"{len(usable)} of {len(pairs)} pairs keep an answer within `finetune.sequence_tokens` = "
            f"{finetune.sequence_tokens}; at least 2 are needed, one to train on and one to validate."
        )
    return usable


def run_teacher(job: Build, data: Stage) -> Stage:
    """Stage 3."""
    finetune = job.recipe.finetune
    inputs = {
        "teacher": job.knowledge_teacher_digest,
        "data": data.output_digest,
        "tokenizer": job.base_digest,
        "samples": [finetune.loss_on, finetune.sequence_tokens, finetune.batch_tokens],
    }

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.teacher import cache_teacher

        return cache_teacher(
            job.knowledge_teacher, samples_of(job, data), finetune.batch_tokens, _pad_token(job), folder,
            job.run.reporter.step,
        )  # fmt: skip

    return job.run.stage("teacher", inputs, work, products=("hidden.bin", "head.safetensors"), resumable=True)


def _pad_token(job: Build) -> int:
    from edgewright_builder.models import load_tokenizer

    tokenizer = load_tokenizer(job.base)
    token = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(token or 0)


def distillation_data(job: Build, data: Stage, teacher: Stage) -> Any:
    """The samples, their split, and what the teacher said of them."""
    from edgewright_builder.stages.teacher import read_teacher
    from edgewright_builder.train.distill import DistillationData
    from edgewright_builder.train.samples import split

    samples = samples_of(job, data)
    train, validation = split(samples, job.recipe.finetune.validation_fraction, job.recipe.seed)
    hidden, head = read_teacher(teacher.folder, samples)
    shared = min(len(head), job.architecture.vocab_size)  # families pad their heads to different heights
    return DistillationData(samples, train, validation, hidden, head[:shared], _pad_token(job))

"""The whole road on the host, in order: a recipe, a device profile and a budget become a signed artifact.

    data → student → teacher → search → finetune → quantize → export → evaluate → package

Each stage is a function in `stages/`; here is only what each depends on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright_agent import __version__
from edgewright_agent.errors import InputError
from edgewright_builder.fit.architecture import Architecture, architecture_from_config
from edgewright_builder.fit.calibrate import calibration_for
from edgewright_builder.fit.engines import DEFAULT_ENGINE
from edgewright_builder.fit.memory import Calibration
from edgewright_builder.fit.plan import Plan, Wishes, make_plan, plan_to_json, with_group_size
from edgewright_builder.lineage import portable
from edgewright_builder.models import model_digest, read_config, resolve_model
from edgewright_builder.recipe import Recipe
from edgewright_builder.run import Run, Stage, file_sha256, write_json
from edgewright_builder.stages.earlier import Earlier, earlier_model
from edgewright_builder.stages.package import manifest_fields
from edgewright_profiles import DeviceProfile


@dataclass(frozen=True)
class Build:
    """One build: what to make, for what, and where."""

    recipe: Recipe
    profile: DeviceProfile
    budget_bytes: int
    run: Run
    signing_key: Ed25519PrivateKey

    @cached_property
    def base(self) -> Path:
        """The student before pruning."""
        return resolve_model(self.recipe.student.model)

    @cached_property
    def knowledge_teacher(self) -> Path:
        """T2."""
        return resolve_model(self.recipe.teachers.knowledge.model)

    @cached_property
    def base_digest(self) -> str:
        """Of the student before pruning; once, as it reads all weights."""
        return model_digest(self.base)

    @cached_property
    def knowledge_teacher_digest(self) -> str:
        """Of T2; once, as it reads all weights."""
        return model_digest(self.knowledge_teacher)

    @cached_property
    def architecture(self) -> Architecture:
        """Facts of the student before pruning."""
        return architecture_from_config(read_config(self.base))

    @cached_property
    def calibration(self) -> Calibration:
        """What is known of the engine's memory, on this board where it was measured there."""
        return calibration_for(self.recipe.serving.engine, self.profile.id)

    @cached_property
    def plan(self) -> Plan:
        """The configuration to make."""
        return make_plan(
            self.architecture,
            wishes_of(self.recipe, self.architecture),
            self.budget_bytes,
            self.calibration,
        )


def wishes_of(recipe: Recipe, architecture: Architecture) -> Wishes:
    """What the recipe fixes of the plan."""
    student, quantize = recipe.student, recipe.quantize
    layers: int | None = None if student.depth == "auto" else architecture.layers
    if isinstance(student.depth, int):
        layers = student.depth
    if student.drop_layers is not None:
        layers = architecture.layers - len(set(student.drop_layers))
    return Wishes(
        context_tokens=recipe.serving.context_tokens,
        concurrency=recipe.serving.concurrency,
        layers=layers,
        group_size=None if quantize.group_size == "auto" else quantize.group_size,
        embedding_bits=None if quantize.embedding_bits == "auto" else quantize.embedding_bits,
    )


def build(job: Build) -> Stage:
    """Runs every stage that is not done; returns the last. `preflight` comes first. Raises EdgewrightError."""
    from edgewright_builder.finishing import run_evaluate, run_package

    data = run_data(job)
    student = run_student(job, data)
    _write_plan(job, job.plan, student)
    teacher = run_teacher(job, data)
    best = run_search(job, data, student, teacher)
    plan = with_group_size(job.plan, job.architecture, _choice(best).group_size, job.calibration)
    _write_plan(job, plan, student)
    finetuned = run_finetune(job, data, student, teacher, best)
    quantized = run_quantize(job, data, finetuned, best)
    exported = run_export(job, quantized)
    lineage = {
        "edgewright": __version__,
        "base_sha256": job.base_digest,
        "knowledge_teacher_sha256": job.knowledge_teacher_digest,
        "data_sha256": data.output_digest,
        "data_pairs": data.summary["pairs"],
        "recipe": portable(job.recipe),
        "hyperparameters": asdict(_choice(best).hyperparameters),
        "quantization": {"method": "gptq", "symmetric": True, **quantized.summary},
    }
    fields = manifest_fields(job.recipe, plan, job.architecture, job.profile.id, lineage)
    evaluated = run_evaluate(job, student, finetuned, exported, fields)
    return run_package(job, data, exported, evaluated, fields)


def _write_plan(job: Build, plan: Plan, student: Stage) -> None:
    device = {"id": job.profile.id, "name": job.profile.name}
    value = plan_to_json(plan, job.architecture, job.recipe.student.model, device)
    write_json(job.run.folder / "plan.json", value | {"dropped_layers": student.summary["dropped_layers"]})


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


def _samples(job: Build, data: Stage) -> list[Any]:
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


def run_student(job: Build, data: Stage) -> Stage:
    """Stage 2."""
    layers, drop_layers = job.plan.configuration.layers, job.recipe.student.drop_layers
    inputs = {"base": job.base_digest, "layers": layers, "drop_layers": drop_layers}
    if layers < job.architecture.layers and drop_layers is None:
        inputs["data"] = data.output_digest

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.student import make_student

        return make_student(job.base, _samples(job, data), layers, drop_layers, folder, job.run.reporter.step)

    return job.run.stage("student", inputs, work, products=("model",))


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
            job.knowledge_teacher, _samples(job, data), finetune.batch_tokens, _pad_token(job), folder,
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

    samples = _samples(job, data)
    train, validation = split(samples, job.recipe.finetune.validation_fraction, job.recipe.seed)
    hidden, head = read_teacher(teacher.folder, samples)
    shared = min(len(head), job.architecture.vocab_size)  # families pad their heads to different heights
    return DistillationData(samples, train, validation, hidden, head[:shared], _pad_token(job))


def run_search(job: Build, data: Stage, student: Stage, teacher: Stage) -> Stage:
    """Stage 4."""
    recipe = job.recipe
    candidates = _feasibilities(job)
    inputs = {
        "student": student.output_digest,
        "teacher": teacher.output_digest,
        "search": recipe.search.model_dump(),
        "finetune": recipe.finetune.model_dump(),
        "group_sizes": [each.group_size for each in candidates if each.peak_bytes <= each.budget_bytes],
        "seed": recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.search import search

        return search(
            student.folder / "model", distillation_data(job, data, teacher), recipe.search, recipe.finetune,
            candidates, recipe.seed, folder, job.run.reporter.step,
        )  # fmt: skip

    return job.run.stage("search", inputs, work, products=("best.json",), resumable=True)


def _feasibilities(job: Build) -> list[Any]:
    """h(m̂) of every group size the search may choose, before anything is trained."""
    from edgewright_builder.stages.search import Feasibility

    m = job.plan.configuration
    largest = job.architecture.largest_group_size()
    wished: list[int] = [size for size in job.recipe.search.space.group_size if size <= largest]
    sizes = wished or [m.group_size]
    plans = [with_group_size(job.plan, job.architecture, size, job.calibration) for size in sizes]
    return [
        Feasibility(plan.configuration.group_size, plan.peak_bound_bytes, job.budget_bytes) for plan in plans
    ]


def _choice(best: Stage) -> Any:
    from edgewright_builder.stages.search import read_best

    return read_best(best.folder)


def run_finetune(job: Build, data: Stage, student: Stage, teacher: Stage, best: Stage) -> Stage:
    """Stage 5."""
    recipe, choice = job.recipe, _choice(best)
    inputs = {
        "student": student.output_digest,
        "teacher": teacher.output_digest,
        "choice": asdict(choice),
        "finetune": recipe.finetune.model_dump(),
        "seed": recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.finetune import finetune

        return finetune(
            student.folder / "model", distillation_data(job, data, teacher), choice, recipe.finetune, recipe.seed,
            folder, job.run.reporter.step,
        )  # fmt: skip

    return job.run.stage("finetune", inputs, work, products=("model",))


def run_quantize(job: Build, data: Stage, finetuned: Stage, best: Stage) -> Stage:
    """Stage 6."""
    sequences, group_size = job.recipe.quantize.calibration_sequences, _choice(best).group_size
    inputs = {
        "model": finetuned.output_digest,
        "data": data.output_digest,
        "sequences": sequences,
        "group_size": group_size,
        "seed": job.recipe.seed,
    }
    earlier = earlier_of(job.recipe)
    if earlier is not None:
        inputs["earlier"] = [earlier.digest, earlier.dead_band]

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.quantize import quantize
        from edgewright_builder.train.samples import split

        samples = _samples(job, data)
        train, _ = split(samples, job.recipe.finetune.validation_fraction, job.recipe.seed)
        calibration = [samples[index] for index in train]
        return quantize(
            finetuned.folder / "model", calibration, sequences, group_size, job.recipe.seed, folder,
            job.run.reporter.step, earlier,
        )  # fmt: skip

    return job.run.stage("quantize", inputs, work, products=("model",))


def earlier_of(recipe: Recipe) -> Earlier | None:
    """The model whose codes are kept where they can be; None unless the recipe names one."""
    settings = recipe.quantize
    return None if settings.delta_from is None else earlier_model(settings.delta_from, settings.dead_band)


def run_export(job: Build, quantized: Stage) -> Stage:
    """Stage 7."""
    serving, embedding_bits = job.recipe.serving, job.plan.configuration.embedding_bits
    modules = () if serving.adapters is None else serving.adapters.modules
    inputs = {"checkpoint": quantized.output_digest, "embedding_bits": embedding_bits}
    if modules:
        inputs["adapter_modules"] = modules
    if serving.engine != DEFAULT_ENGINE:
        inputs["engine"] = serving.engine

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.export import export
        from edgewright_builder.stages.export_vllm import export_vllm

        checkpoint = quantized.folder / "model"
        if serving.engine == "vllm":
            return export_vllm(checkpoint, folder)
        return export(checkpoint, embedding_bits, folder, adapter_modules=modules)

    return job.run.stage("export", inputs, work, products=("engine", "tokenizer"))

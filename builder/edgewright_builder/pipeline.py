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
from edgewright_builder.fit.architecture import Architecture, architecture_from_config
from edgewright_builder.fit.memory import load_calibration
from edgewright_builder.fit.plan import Plan, Wishes, make_plan, plan_to_json
from edgewright_builder.models import model_digest, read_config, resolve_model
from edgewright_builder.recipe import Recipe
from edgewright_builder.run import Run, Stage, digest_of, file_sha256, write_json
from edgewright_profiles import DeviceProfile

GOLDEN_TOKENS = 16


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
    def architecture(self) -> Architecture:
        """Facts of the student before pruning."""
        return architecture_from_config(read_config(self.base))

    @cached_property
    def plan(self) -> Plan:
        """The configuration to make."""
        return make_plan(
            self.architecture,
            wishes_of(self.recipe, self.architecture),
            self.budget_bytes,
            load_calibration(self.recipe.serving.engine),
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
    device = {"id": job.profile.id, "name": job.profile.name}
    plan = plan_to_json(job.plan, job.architecture, job.recipe.student.model, device)
    data = run_data(job)
    student = run_student(job, data)
    write_json(job.run.folder / "plan.json", plan | {"dropped_layers": student.summary["dropped_layers"]})
    teacher = run_teacher(job, data)
    best = run_search(job, data, student, teacher)
    finetuned = run_finetune(job, data, student, teacher, best)
    quantized = run_quantize(job, data, finetuned, best)
    exported = run_export(job, quantized)
    lineage = _lineage(job, data, best)
    evaluated = run_evaluate(job, student, finetuned, exported, lineage)
    return run_package(job, data, exported, evaluated, lineage)


def run_data(job: Build) -> Stage:
    """Stage 1."""
    recipe, data = job.recipe, job.recipe.data
    benchmarks = recipe.evaluate.benchmarks
    inputs = {"data": data.model_dump(exclude={"file"}), "task": recipe.task, "seed": recipe.seed}
    inputs["contamination"] = (
        [str(path.name) for path in sorted(benchmarks.glob("*/eval.jsonl"))] if benchmarks else []
    )
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
    return [sample for sample in samples if sample is not None]


def run_student(job: Build, data: Stage) -> Stage:
    """Stage 2."""
    layers, drop_layers = job.plan.configuration.layers, job.recipe.student.drop_layers
    inputs = {"base": model_digest(job.base), "layers": layers, "drop_layers": drop_layers}
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
        "teacher": model_digest(job.knowledge_teacher),
        "data": data.output_digest,
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


def _distillation_data(job: Build, data: Stage, teacher: Stage) -> Any:
    from edgewright_builder.stages.teacher import read_teacher
    from edgewright_builder.train.distill import DistillationData
    from edgewright_builder.train.samples import split

    samples = _samples(job, data)
    train, validation = split(samples, job.recipe.finetune.validation_fraction, job.recipe.seed)
    hidden, head = read_teacher(teacher.folder, samples)
    return DistillationData(samples, train, validation, hidden, head, _pad_token(job))


def run_search(job: Build, data: Stage, student: Stage, teacher: Stage) -> Stage:
    """Stage 4."""
    recipe = job.recipe
    candidates = _feasibilities(job)
    inputs = {
        "student": student.output_digest,
        "teacher": teacher.output_digest,
        "search": recipe.search.model_dump(),
        "finetune": recipe.finetune.model_dump(),
        "candidates": [asdict(candidate) for candidate in candidates],
        "seed": recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.search import search

        return search(
            student.folder / "model", _distillation_data(job, data, teacher), recipe.search, recipe.finetune,
            candidates, recipe.seed, folder, job.run.reporter.step,
        )  # fmt: skip

    return job.run.stage("search", inputs, work, products=("best.json",), resumable=True)


def _feasibilities(job: Build) -> list[Any]:
    """h(m̂) of every group size the search may choose, before anything is trained."""
    from dataclasses import replace

    from edgewright_builder.fit.memory import predict_memory
    from edgewright_builder.stages.search import Feasibility

    m, calibration = job.plan.configuration, load_calibration(job.recipe.serving.engine)
    largest = job.architecture.largest_group_size()
    wished: list[int] = [size for size in job.recipe.search.space.group_size if size <= largest]
    sizes = wished or [m.group_size]
    return [
        Feasibility(
            size,
            predict_memory(job.architecture, replace(m, group_size=size), calibration).peak_bytes,
            job.budget_bytes,
        )
        for size in sizes
    ]


def _choice(job: Build, best: Stage) -> Any:
    from edgewright_builder.stages.search import read_best

    params = json.loads((best.folder / "best.json").read_text(encoding="utf-8"))["params"]
    return read_best(params, job.plan.configuration.group_size)


def run_finetune(job: Build, data: Stage, student: Stage, teacher: Stage, best: Stage) -> Stage:
    """Stage 5."""
    recipe, choice = job.recipe, _choice(job, best)
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
            student.folder / "model", _distillation_data(job, data, teacher), choice, recipe.finetune, recipe.seed,
            folder, job.run.reporter.step,
        )  # fmt: skip

    return job.run.stage("finetune", inputs, work, products=("model",))


def run_quantize(job: Build, data: Stage, finetuned: Stage, best: Stage) -> Stage:
    """Stage 6."""
    sequences, group_size = job.recipe.quantize.calibration_sequences, _choice(job, best).group_size
    inputs = {
        "model": finetuned.output_digest,
        "data": data.output_digest,
        "sequences": sequences,
        "group_size": group_size,
        "seed": job.recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.quantize import quantize
        from edgewright_builder.train.samples import split

        samples = _samples(job, data)
        train, _ = split(samples, job.recipe.finetune.validation_fraction, job.recipe.seed)
        calibration = [samples[index] for index in train]
        return quantize(
            finetuned.folder / "model", calibration, sequences, group_size, folder, job.run.reporter.step
        )

    return job.run.stage("quantize", inputs, work, products=("model",))


def run_export(job: Build, quantized: Stage) -> Stage:
    """Stage 7."""
    embedding_bits = job.plan.configuration.embedding_bits
    inputs = {"checkpoint": quantized.output_digest, "embedding_bits": embedding_bits}

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.export import export

        return export(quantized.folder / "model", embedding_bits, folder)

    return job.run.stage("export", inputs, work, products=("engine", "tokenizer"))


def _lineage(job: Build, data: Stage, best: Stage) -> dict[str, Any]:
    """Where the artifact comes from: digests and settings, no paths and no times."""
    recipe, choice = job.recipe, _choice(job, best)
    return {
        "edgewright": __version__,
        "base": {"model": recipe.student.model, "sha256": model_digest(job.base)},
        "knowledge_teacher": {
            "model": recipe.teachers.knowledge.model,
            "sha256": model_digest(job.knowledge_teacher),
        },
        "data_teacher": recipe.teachers.data.model_dump() if recipe.teachers.data else None,
        "data_sha256": data.output_digest,
        "data_pairs": data.summary["pairs"],
        "recipe_sha256": digest_of(_without_paths(recipe)),
        "hyperparameters": asdict(choice.hyperparameters),
        "quantization": {
            "method": "gptq",
            "bits": 4,
            "symmetric": True,
            "group_size": choice.group_size,
            "calibration_sequences": recipe.quantize.calibration_sequences,
        },
        "seed": recipe.seed,
    }


def _without_paths(recipe: Recipe) -> dict[str, Any]:
    """The recipe as it would read in any folder."""
    values = recipe.model_dump(mode="json")
    values["evaluate"]["benchmarks"] = None
    values["evaluate"]["tasks"] = [Path(task).name for task in recipe.evaluate.tasks]
    values["data"]["file"] = None if recipe.data.file is None else recipe.data.file.name
    values["data"]["prompts"] = None if recipe.data.prompts is None else recipe.data.prompts.name
    return values


def run_evaluate(
    job: Build, student: Stage, finetuned: Stage, exported: Stage, lineage: dict[str, Any]
) -> Stage:
    """Stage 8."""
    recipe = job.recipe
    models = {
        "teacher": (job.knowledge_teacher, model_digest(job.knowledge_teacher)),
        "student": (student.folder / "model", student.output_digest),
        "finetuned": (finetuned.folder / "model", finetuned.output_digest),
    }
    inputs = {
        "models": {name: digest for name, (_, digest) in models.items()},
        "exported": exported.output_digest,
        "tasks": [Path(task).name for task in recipe.evaluate.tasks] or [recipe.task],
        "limit": recipe.evaluate.limit,
        "serving": recipe.serving.model_dump(),
    }

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.evaluate import EvaluatedModel, evaluate
        from edgewright_builder.stages.package import draft_manifest, manifest_fields
        from edgewright_builder.tasks.loading import load_task

        names = recipe.evaluate.tasks or (recipe.task,)
        tasks = [load_task(name, recipe.evaluate.benchmarks, recipe.evaluate.limit) for name in names]
        fields = manifest_fields(recipe, job.plan, job.architecture, job.profile.id, lineage)
        manifest = draft_manifest(exported.folder, fields)
        evaluated = [EvaluatedModel(name, digest, _opener(path)) for name, (path, digest) in models.items()]
        evaluated.append(
            EvaluatedModel("exported", exported.output_digest, _engine_opener(exported.folder, manifest))
        )
        result = evaluate(evaluated, tasks, folder, on_progress=job.run.reporter.step)
        return {
            f"{task.name} {name}": round(result.results[name, task.name].accuracy().value, 4)
            for task in tasks
            for name in (*models, "exported")
        }

    return job.run.stage("evaluate", inputs, work, products=("results.json",), resumable=True)


def _opener(folder: Path) -> Any:
    """Opens a model on the host as a scorer."""

    @contextmanager
    def open_model() -> Iterator[Any]:
        from edgewright_builder.models import load_model, load_tokenizer
        from edgewright_builder.tasks.local import LocalScorer

        yield LocalScorer(load_model(folder), load_tokenizer(folder))

    return open_model


def _engine_opener(tree: Path, manifest: Any) -> Any:
    """Opens the exported model in the engine that will serve it."""

    @contextmanager
    def open_engine() -> Iterator[Any]:
        from edgewright_builder.local_engine import local_engine

        with local_engine(tree, manifest) as engine:
            yield engine

    return open_engine


def run_package(job: Build, data: Stage, exported: Stage, evaluated: Stage, lineage: dict[str, Any]) -> Stage:
    """Stage 9."""
    inputs = {
        "export": exported.output_digest,
        "evaluate": evaluated.output_digest,
        "lineage": lineage,
        "recipe": [job.recipe.name, job.recipe.version, job.recipe.release_counter],
        "plan": asdict(job.plan),
        "device": job.profile.id,
    }

    def work(folder: Path) -> dict[str, Any]:
        from edgewright_builder.stages.package import manifest_fields, package

        fields = manifest_fields(job.recipe, job.plan, job.architecture, job.profile.id, lineage)
        fields["golden"] = _golden(job, data, exported, fields)
        fields["accuracy"] = _accuracies(evaluated.folder)
        bf16_bytes = job.architecture.with_layers(job.plan.configuration.layers).bf16_bytes
        return package(exported.folder, fields, job.signing_key, job.run.folder / "artifact", bf16_bytes)

    return job.run.stage("package", inputs, work, products=())


def _golden(job: Build, data: Stage, exported: Stage, fields: dict[str, Any]) -> dict[str, Any]:
    """A greedy completion by the engine that serves, which every board must reproduce."""
    from edgewright_builder.models import load_tokenizer
    from edgewright_builder.stages.package import draft_manifest
    from edgewright_builder.train.samples import chat_texts

    with (data.folder / "data.jsonl").open(encoding="utf-8") as file:
        prompt, _ = chat_texts(load_tokenizer(job.base), json.loads(file.readline()))
    with _engine_opener(exported.folder, draft_manifest(exported.folder, fields))() as engine:
        return {"prompt": prompt, "tokens": list(engine.greedy(prompt, GOLDEN_TOKENS))}


def _accuracies(folder: Path) -> list[dict[str, Any]]:
    """The manifest's accuracy rows, each by its task's own metric."""
    tasks = json.loads((folder / "results.json").read_text(encoding="utf-8"))["tasks"]
    return [
        {
            "task": name,
            "model": model,
            "accuracy": values[task["metric"]]["value"],
            "standard_error": values[task["metric"]]["standard_error"],
            "rows": task["rows"],
        }
        for name, task in tasks.items()
        for model, values in task["models"].items()
    ]

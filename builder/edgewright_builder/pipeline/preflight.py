"""Finds what is wrong before anything is written: models, plan, data, tasks, vocabulary."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from edgewright.errors import InputError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines import available_engines
from edgewright_builder.alignment.comparable_share import share_of_texts
from edgewright_builder.alignment.teacher_fit import require_aligned
from edgewright_builder.alignment.vocabulary import read_vocabulary
from edgewright_builder.data.alpaca import AlpacaRow
from edgewright_builder.data.general_text import general_passages
from edgewright_builder.data.own_data import select_rows
from edgewright_builder.data.presets import load_preset
from edgewright_builder.data.prompts import check_prompts, load_prompts
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.models.folder import load_tokenizer, read_config
from edgewright_builder.models.sources import resolve_model
from edgewright_builder.parity.prove import require_proof
from edgewright_builder.pipeline.inputs_in_own_run import refuse_own_products
from edgewright_builder.quantization.earlier_model import require_same_shape
from edgewright_builder.recipe.model_recipe import DataTeacher, EvaluateSettings, Recipe
from edgewright_builder.run.build_definition import Build
from edgewright_builder.run.distillation_inputs import Distillation
from edgewright_builder.stages.data import contamination_of, data_inputs
from edgewright_builder.stages.general_text import general_samples
from edgewright_builder.stages.quantize import earlier_of
from edgewright_builder.stages.teacher import teacher_inputs
from edgewright_builder.tasks.definitions import DEFINITIONS
from edgewright_builder.tasks.loading import load_task, require_distinct
from edgewright_builder.teacher_cache.source import prompt_scores


def preflight(build: Build) -> None:
    """Raises the error that `build_model` would come to later, and leaves the run's folder as it is.

    Cheapest first; only vocabularies and texts import transformers, and the proof that the engine computes what
    transformers does runs in a process of its own. Models are fetched, as the build needs them in any case.
    """
    refuse_own_products(build.recipe, build.run.folder)
    _check_served(build)
    _check_layers(build)
    _check_tokens(build)
    check_engine(build.recipe.serving.engine)
    _check_latency(build)
    check_quantizer(build.recipe)
    _check_earlier(build)
    check_tasks(build.recipe.evaluate, build.recipe.task)
    check_data(build.distillation)
    check_general_text(build.recipe, build.distillation.student)
    check_knowledge(build.distillation)
    _check_storage(build)
    _check_computation(build)


def check_engine(kind: str) -> None:
    """Raises RefusedError where the engine that is to serve can't run here, as it evaluates what it is to serve.

    One that runs on no host is left out: transformers evaluates the same weights.
    """
    if not engine_traits(kind).runs_on_host:
        return
    engine = next(engine for engine in available_engines() if engine.kind == kind)
    if not engine.available:
        raise RefusedError(
            f"The build evaluates its model in {kind}, which can't run on this host: {engine.detail}. Install it, or "
            "choose another `serving.engine`.",
            Reason.REASON_ENGINE_UNAVAILABLE,
        )


def _check_layers(build: Build) -> None:
    student, layers = build.recipe.student, build.architecture.layers
    depth, dropped = student.depth, student.drop_layers
    if dropped is None:
        if isinstance(depth, int) and depth < min(2, layers):
            raise InputError(f"`student.depth` is {depth}; the first and the last layer stay: at least 2.")
        return
    if wrong := [index for index in dropped if not 0 <= index < layers]:
        raise InputError(
            f"`student.drop_layers` names layer {wrong[0]}; the model has layers 0 to {layers - 1}. Remove it."
        )
    if len(set(dropped)) == layers:
        raise InputError(f"`student.drop_layers` names all {layers} layers; at least 1 must stay.")


def _check_served(build: Build) -> None:
    """Raises InputError for a model that the engine can't compute as it was planned, or its format can't hold."""
    config, layers = read_config(build.distillation.student), build.plan.configuration.layers
    if config.get("quantization_config"):
        raise InputError(
            "`student.model` is quantized already (`quantization_config` of its config.json), and a build trains "
            "weights of 16 or 32 bits. Name the model that it was made from."
        )
    why = engine_traits(build.recipe.serving.engine).why_not(config, layers)
    if why is not None:
        raise InputError(f"`student.model` can't be served: {why}.")


def _check_tokens(build: Build) -> None:
    """Raises InputError for a student whose tokenizer has tokens that its embedding has no row for."""
    folder, rows = build.distillation.student, build.architecture.vocab_size
    if not (folder / "tokenizer.json").is_file():
        return  # transformers makes one of another file
    names = read_vocabulary(folder).names
    if (last := max(names, default=0)) >= rows:
        raise InputError(
            f"The tokenizer of `student.model` has token {last}, {names[last]!r}, and the model's embedding {rows} "
            "rows. Resize the embedding (`model.resize_token_embeddings`), or take the tokenizer that it was made with."
        )


def _check_computation(build: Build) -> None:
    """Raises InputError where what would be exported does not compute what transformers computes."""
    engine = build.recipe.serving.engine
    if engine_traits(engine).proof is not None:
        require_proof(read_config(build.distillation.student), engine)


def _check_latency(build: Build) -> None:
    """Raises InputError for a limit that the board is measured to miss: it would roll back what took hours to make."""
    limit, speed = build.recipe.serving.tpot_seconds_max, build.speed_of(build.plan)
    if limit is not None and speed.measurements and limit < speed.tpot_seconds_min:
        raise InputError(
            f"`serving.tpot_seconds_max` is {limit:g} s; this plan is predicted to take {speed.tpot_seconds_min:.2g} s "
            f"or more on {build.profile.id}, from {speed.rests_on}. Raise the limit, or lower `student.depth`."
        )


def check_quantizer(recipe: Recipe) -> None:
    """Raises InputError where the package that is to quantize is not installed."""
    if recipe.quantize.method == "autoround" and importlib.util.find_spec("auto_round") is None:
        raise InputError(
            "`quantize.method: autoround` needs the package auto-round, which is not installed: "
            "pip install 'edgewright[autoround]', or leave the method out for GPTQ."
        )


def _check_earlier(build: Build) -> None:
    """Raises InputError unless the model of `quantize.delta_from` has the shape that every plan gives this one."""
    earlier = earlier_of(build.recipe)
    if earlier is None:
        return
    for plan in build.plans:
        m, dropped = plan.configuration, build.recipe.student.drop_layers
        if dropped is None and (earlier.dropped_layers or m.layers == build.architecture.layers):
            dropped = ()  # left to the data, which would drop others
        config = read_config(build.distillation.student) | {"num_hidden_layers": m.layers}
        require_same_shape(config, m.group_size, dropped, earlier)


def check_tasks(evaluate: EvaluateSettings, task: str) -> None:
    """Raises InputError where a task's rows can't be had, or two tasks have one name."""
    names = evaluate.tasks or (task,)
    require_distinct(names)
    for name in names:
        if name not in DEFINITIONS or evaluate.benchmarks is not None:
            load_task(name, evaluate.benchmarks, evaluate.limit)
        elif importlib.util.find_spec("lm_eval") is None:
            raise InputError(
                f"The rows of task {name} come from lm-evaluation-harness, which is not installed: "
                "pip install 'edgewright[harness]', or give a folder of TASK/eval.jsonl with --benchmarks."
            )


def check_data(job: Distillation) -> None:
    """Raises InputError where the data, or the model that is to write it, can't be had."""
    recipe, data, teacher = job.recipe, job.recipe.data, job.recipe.teachers.data
    if data.file is not None:
        rows, _ = select_rows(data.file, contamination_of(recipe.evaluate.benchmarks))
        _check_dialogues(job, rows)
        return
    check_prompts(load_prompts(data.prompts), load_preset(data.preset or recipe.task))
    if teacher is not None and job.run.kept("data", data_inputs(job)) is None:
        _check_teacher(teacher)


def check_general_text(recipe: Recipe, student: Path) -> None:
    """Raises InputError where a general text of the recipe's own that is read can't be, or holds too little."""
    quantize, recover = recipe.quantize, recipe.recover
    read = []
    if quantize.general_share > 0:
        read.append(quantize.general_data or recover.data)
    if recover.train != "off" and recover.general_share > 0:
        read.append(recover.data)
    for file in dict.fromkeys(path for path in read if path is not None):
        general_samples(student, file, recipe.finetune.sequence_tokens)


def check_knowledge(job: Distillation) -> None:
    """Raises InputError or OutsideError where T2 can't be held against the student, or its server can't be used."""
    served = job.served_teacher
    if served is not None and job.recipe.distillation.alignment == "uld":
        raise InputError(
            "`distillation.alignment: uld` needs every probability of T2, and an endpoint gives the highest alone; "
            "take `projected`, or a model that is loaded here."
        )
    if job.alignment != "shared":
        student, teacher = read_vocabulary(job.student), read_vocabulary(job.teacher)
        require_aligned(
            share_of_texts(student, teacher, general_passages()), job.recipe.distillation.minimum_aligned
        )
    if served is not None and not _has_answered(job):
        _check_key("teachers.knowledge", served.api_key_env)
        prompt_scores(served, job.teacher).check()


def _has_answered(job: Distillation) -> bool:
    """Whether this very T2 has said all that it is asked, so that its answers are kept."""
    data = job.run.kept("data", data_inputs(job))
    return data is not None and job.run.kept("teacher", teacher_inputs(job, data)) is not None


def _check_storage(build: Build) -> None:
    """Raises InputError or OutsideError where the database that a search shares can't be used."""
    from edgewright_builder.run.optuna_storage import shared_storage, storage_faults

    address = build.recipe.search.storage
    if address is not None and build.recipe.hyperparameters is None:
        with storage_faults(address), shared_storage(address):
            pass


def _check_teacher(teacher: DataTeacher) -> None:
    if teacher.endpoint is None:
        resolve_model(teacher.model)
    else:
        _check_key("teachers.data", teacher.api_key_env)


def _check_key(section: str, variable: str | None) -> None:
    if variable is not None and not os.environ.get(variable):
        raise InputError(
            f"`{section}.api_key_env` is {variable}, and that environment variable is not set; set it to the key of "
            "the endpoint."
        )


def _check_dialogues(job: Distillation, rows: Sequence[AlpacaRow]) -> None:
    """Raises InputError where the student's chat template can't write the data's dialogues."""
    dialogue = next((row for row in rows if row.history), None) or next(
        (row for row in rows if row.system), None
    )
    if dialogue is not None:
        from edgewright_builder.train.samples import chat_texts

        chat_texts(load_tokenizer(job.student), dialogue.values())

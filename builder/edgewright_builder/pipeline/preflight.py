"""What can be known to be wrong before anything is written: models, plan, data, tasks, vocabulary."""

from __future__ import annotations

import importlib.util

from edgewright.errors import InputError, RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines import available_engines
from edgewright_builder.data.presets import load_preset
from edgewright_builder.data.prompts import load_prompts
from edgewright_builder.models import read_config, require_same_vocabulary, resolve_model
from edgewright_builder.quantization.earlier import require_same_shape
from edgewright_builder.recipe.model import Evaluate
from edgewright_builder.run.build import Build
from edgewright_builder.run.run import read_stage
from edgewright_builder.shaping import earlier_of
from edgewright_builder.tasks.definitions import DEFINITIONS
from edgewright_builder.tasks.loading import load_task
from edgewright_builder.teaching import data_settings


def preflight(job: Build) -> None:
    """Raises the error that `build` would come to later, and leaves the run's folder as it is.

    Cheapest first; only the vocabularies import transformers. Models are fetched, as the build needs them in any case.
    """
    _check_layers(job)
    check_engine(job.recipe.serving.engine)
    _check_latency(job)
    _check_earlier(job)
    check_tasks(job.recipe.evaluate, job.recipe.task)
    check_data(job)
    require_same_vocabulary(job.base, job.knowledge_teacher)


def check_engine(kind: str) -> None:
    """Raises RefusedError where the engine that is to serve can't run here, as it evaluates what it is to serve."""
    engine = next(engine for engine in available_engines() if engine.kind == kind)
    if not engine.available:
        raise RefusedError(
            f"The build evaluates its model in {kind}, which can't run on this host: {engine.detail}.",
            Reason.REASON_ENGINE_UNAVAILABLE,
        )


def _check_layers(job: Build) -> None:
    depth, dropped, layers = job.recipe.student.depth, job.recipe.student.drop_layers, job.architecture.layers
    if dropped is None:
        if isinstance(depth, int) and depth < min(2, layers):
            raise InputError(f"`student.depth` is {depth}; the first and the last layer stay: at least 2.")
        return
    if wrong := [index for index in dropped if not 0 <= index < layers]:
        raise InputError(
            f"`student.drop_layers` names layer {wrong[0]}; the model has layers 0 to {layers - 1}."
        )
    if len(set(dropped)) == layers:
        raise InputError(f"`student.drop_layers` names all {layers} layers; at least 1 must stay.")


def _check_latency(job: Build) -> None:
    """Raises InputError for a limit that the board is measured to miss: it would roll back what took hours to make."""
    limit, speed = job.recipe.serving.tpot_seconds_max, job.speed_of(job.plan)
    if limit is not None and speed.measurements and limit < speed.tpot_seconds_min:
        raise InputError(
            f"`serving.tpot_seconds_max` is {limit:g} s; this plan is predicted to take {speed.tpot_seconds_min:.2g} s "
            f"or more on {job.profile.id}, from {speed.rests_on}. Raise the limit, or lower `student.depth`."
        )


def _check_earlier(job: Build) -> None:
    """The earlier model of `quantize.delta_from` must have the shape that the plan gives this one."""
    earlier = earlier_of(job.recipe)
    if earlier is not None:
        m, dropped = job.plan.configuration, job.recipe.student.drop_layers
        if dropped is None and (earlier.dropped_layers or m.layers == job.architecture.layers):
            dropped = ()  # left to the data, which would drop others
        config = read_config(job.base) | {"num_hidden_layers": m.layers}
        require_same_shape(config, m.group_size, dropped, earlier)


def check_tasks(evaluate: Evaluate, task: str) -> None:
    """Raises InputError where a task's rows can't be had."""
    for name in evaluate.tasks or (task,):
        if name not in DEFINITIONS or evaluate.benchmarks is not None:
            load_task(name, evaluate.benchmarks, evaluate.limit)
        elif importlib.util.find_spec("lm_eval") is None:
            raise InputError(
                f"The rows of task {name} come from lm-evaluation-harness, which is not installed: "
                "pip install 'edgewright[harness]', or give a folder of TASK/eval.jsonl with --benchmarks."
            )


def check_data(job: Build) -> None:
    """Raises InputError where the data, or the model that is to write it, can't be had."""
    recipe, data, teacher = job.recipe, job.recipe.data, job.recipe.teachers.data
    if data.file is not None:
        from edgewright_builder.stages.data import select_rows

        select_rows(data.file, data_settings(recipe), recipe.evaluate.benchmarks)
        return
    load_preset(data.preset or recipe.task)
    load_prompts(data.prompts)
    made_before = read_stage(job.run.folder / "data") is not None
    if teacher is not None and teacher.endpoint is None and not made_before:
        resolve_model(teacher.model)

"""`RUN/report.html`: one self-contained file, no scripts, nothing fetched. The same run gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from edgewright.durable import FileSystem, write_durably
from edgewright.sizes import format_bytes
from edgewright_builder.report import figures, formats
from edgewright_builder.report.bench_page import BenchView, compare, draw_bench, environment
from edgewright_builder.report.inputs import RunInputs, read_run
from edgewright_builder.report.ladder import ladder
from edgewright_builder.report.records import TaskScore
from edgewright_builder.report.summary import (
    differences,
    key_numbers,
    unfinished_stages,
    verdict,
)
from edgewright_builder.run.resumable_run import STAGES


def write_report(run: Path) -> Path:
    """Writes `run/report.html` from what the run holds so far and returns its path.

    Raises InputError if `run` is not a folder. A missing input is named in the report, it is no error.
    """
    page = render(read_run(run))
    target = run / "report.html"
    write_durably(FileSystem(), target, page.encode())
    return target


def render(inputs: RunInputs) -> str:
    """Returns the report's HTML."""
    templates = environment()
    templates.filters |= _filters()
    tasks, rungs = ladder(inputs)
    return templates.get_template("report.html.j2").render(
        inputs=inputs,
        verdict=verdict(inputs),
        numbers=key_numbers(inputs),
        unfinished=unfinished_stages(inputs),
        stage_count=len(STAGES),
        figures=draw(inputs),
        drawn=_device(inputs),
        accuracy=_by_task(inputs),
        tasks=tasks,
        ladder=rungs,
        far_from_teacher=any(row.to_teacher for row in rungs),
        parameters=list(dict.fromkeys(name for trial in inputs.trials for name in trial.params)),
        best=_best_trial(inputs),
        lineage=_flat(inputs.manifest.lineage) if inputs.manifest else [],
        summaries=[(stage.stage, _flat(stage.summary)) for stage in inputs.stages],
        title=_title(inputs),
    )


def draw(inputs: RunInputs) -> dict[str, Markup | None]:
    """Returns every picture by name; None where its input is missing."""
    plan, peak, curves = inputs.plan, inputs.measured_peak_bytes, inputs.curves
    compared, to_teacher = differences(inputs.scores), inputs.comparison
    return {
        "budget": figures.budget_figure(plan, peak) if plan else None,
        "attrition": figures.attrition_figure(inputs.attrition) if inputs.attrition else None,
        "search": figures.search_figure(inputs.trials, to_teacher),
        "training": figures.training_figure(curves, to_teacher) if curves else None,
        "validation": figures.validation_figure(curves, to_teacher) if curves else None,
        "differences": figures.difference_figure(compared, inputs.quantizer) if compared else None,
        "memory": figures.memory_figure(plan, peak) if plan and peak is not None else None,
        "times": figures.stage_time_figure(inputs.stages) if inputs.stages else None,
    }


def _device(inputs: RunInputs) -> BenchView | None:
    """Returns the bench to show: the device's; beside it what quantization changed, on one machine where both are
    there.
    """
    if inputs.measured is None:
        return draw_bench(inputs.exported, inputs.before) if inputs.exported else None
    drawn = draw_bench(inputs.measured)
    drawn.pictures.pop("Memory", None)  # the report's own has the prediction beside it
    after = inputs.exported or inputs.measured
    return replace(drawn, compared=compare(inputs.before, after)) if inputs.before else drawn


def _filters() -> Mapping[str, Callable[..., Any]]:
    return {
        "bytes": format_bytes,
        "seconds": formats.show_seconds,
        "percent": formats.show_percent,
        "number": formats.show_number,
        "accuracy": formats.show_accuracy,
        "points": formats.show_points,
        "parts": figures.budget_parts,
    }


def _title(inputs: RunInputs) -> str:
    if inputs.manifest:
        return f"{inputs.manifest.name} {inputs.manifest.version}"
    return inputs.plan.model if inputs.plan and inputs.plan.model else inputs.run.resolve().name


def _by_task(inputs: RunInputs) -> list[tuple[str, list[TaskScore], Markup]]:
    tasks = sorted({score.task for score in inputs.scores})
    grouped = [(task, [score for score in inputs.scores if score.task == task]) for task in tasks]
    return [(task, scores, figures.accuracy_figure(scores, inputs.quantizer)) for task, scores in grouped]


def _best_trial(inputs: RunInputs) -> int | None:
    complete = [trial for trial in inputs.trials if trial.state == "complete" and trial.value is not None]
    return min(complete, key=lambda trial: trial.value or 0.0).number if complete else None


def _flat(value: object, path: str = "") -> list[tuple[str, str]]:
    """Nested lineage as (dotted path, text)."""
    if isinstance(value, dict):
        return [
            row for key, inner in value.items() for row in _flat(inner, f"{path}.{key}" if path else str(key))
        ]
    if isinstance(value, list) and any(isinstance(inner, (dict, list)) for inner in value):
        return [row for index, inner in enumerate(value) for row in _flat(inner, f"{path}[{index}]")]
    if isinstance(value, list):
        return [(path, ", ".join(formats.show_number(inner) for inner in value))]
    return [(path, formats.show_number(value))]

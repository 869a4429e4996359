"""The report's pictures: each takes a section's inputs and gives SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from edgewright.sizes import format_bytes
from edgewright_builder.report.charts import (
    Bar,
    Marker,
    Reference,
    Series,
    bar_chart,
    interval_chart,
    plane_chart,
    stacked_bar,
)
from edgewright_builder.report.formats import (
    byte_unit,
    show_accuracy,
    show_number,
    show_percent,
    show_seconds,
    show_signed,
    show_tick,
)
from edgewright_builder.report.records import Curves, PlanRecord, StageRecord, TaskScore, TrialRecord
from edgewright_builder.report.summary import MODELS, Difference, model_names, show_difference
from edgewright_builder.report.teacher_comparison import TeacherComparison

TENSOR_CLASSES = {
    "linear": ("linear weights", "s1"),
    "embedding": ("embedding", "s2"),
    "norm": ("norms", "s6"),
    "kv_cache": ("KV cache", "s3"),
    "activation": ("activations", "s4"),
    "engine": ("engine constant", "s5"),
}
MODEL_CLASSES = {
    "teacher": "s6",
    "student": "s5",
    "finetuned": "s3",
    "quantized": "s4",
    "recovered": "s4",
    "exported": "s2",
    "device": "s1",
}
OBJECTIVES = {
    "quantized_kl": "validation {divergence} at T = 1 when quantized, nats per token",
    "paper": "the paper's loss",
}
OPTIMIZER_CLASSES = ("s1", "s3", "s2", "s5", "s4", "s6")


def budget_parts(plan: PlanRecord) -> list[Bar]:
    """Returns the prediction's parts in the order of the map above; a part it does not know keeps its own name."""
    names = [*TENSOR_CLASSES, *(name for name in plan.breakdown_bytes if name not in TENSOR_CLASSES)]
    parts = [
        (*TENSOR_CLASSES.get(n, (n, "s6")), plan.breakdown_bytes[n])
        for n in names
        if n in plan.breakdown_bytes
    ]
    return [Bar(name, size, format_bytes(size), class_=class_) for name, class_, size in parts]


def budget_figure(plan: PlanRecord, measured_bytes: int | None) -> Markup:
    """Returns the prediction's parts against the budget, with predicted and measured peaks."""
    parts = budget_parts(plan)
    unit, size = byte_unit(max(plan.budget_bytes, plan.predicted_peak_bytes, measured_bytes or 0))
    predicted = f"predicted {format_bytes(plan.predicted_peak_bytes)} ± {format_bytes(plan.error_bytes)}"
    markers = [Marker(plan.predicted_peak_bytes / size, predicted, plan.error_bytes / size)]
    if measured_bytes is not None:
        markers.append(Marker(measured_bytes / size, f"measured {format_bytes(measured_bytes)}"))
    return stacked_bar(
        [Bar(part.name, part.value / size, part.text, class_=part.class_) for part in parts],
        f"peak memory, {unit}",
        show_tick,
        limit=Reference(plan.budget_bytes / size, f"budget {format_bytes(plan.budget_bytes)}"),
        markers=markers,
        description="Predicted memory by part against the budget",
    )


def attrition_figure(counts: Mapping[str, int]) -> Markup:
    """Returns the rows left after each check, from all that were generated to those kept."""
    left = counts.get("generated", 0)
    bars = [Bar("generated", left, f"{left}", class_="s6")]
    for reason, dropped in counts.items():
        if reason not in ("generated", "kept"):
            left -= dropped
            text = f"{left}, without {dropped}" if dropped else f"{left}"
            bars.append(Bar(reason.replace("_", " "), max(left, 0), text))
    kept = counts.get("kept", left)
    bars.append(Bar("kept", kept, f"{kept}", class_="s2"))
    return bar_chart(bars, "rows", show_tick, width=960, description="Rows left after each check of the data")


def search_figure(trials: Sequence[TrialRecord], comparison: TeacherComparison) -> Markup | None:
    """Objective per trial coloured by optimizer, the best so far, and trials without a value as crosses."""
    valued = [
        (trial, trial.value) for trial in trials if trial.state == "complete" and trial.value is not None
    ]
    valued = [(trial, value) for trial, value in valued if math.isfinite(value)]
    if not valued:
        return None
    optimizers = sorted({str(trial.params.get("optimizer", "trial")) for trial, _ in valued})
    series = [Series("best so far", _best_so_far(valued), "ink", "steps")]
    for name, class_ in zip(optimizers, OPTIMIZER_CLASSES, strict=False):
        own = [(t, value) for t, value in valued if str(t.params.get("optimizer", "trial")) == name]
        hover = [f"trial {t.number}: {value:.4g}; {_params(t)}" for t, value in own]
        series.append(Series(name, [(t.number, value) for t, value in own], class_, "dots", hover))
    worst, best = max(value for _, value in valued), min(value for _, value in valued)
    above = worst + 0.1 * ((worst - best) or 1.0)  # no value of theirs: a row of their own
    for state in sorted({trial.state for trial in trials} - {"complete"}):
        others = [trial for trial in trials if trial.state == state]
        hover = [f"trial {t.number}: {state}; {_params(t)}" for t in others]
        class_ = "limit" if state == "diverged" else "muted"
        series.append(Series(state, [(t.number, above) for t in others], class_, "crosses", hover))
    name = valued[0][0].objective
    objective = OBJECTIVES[name].format(divergence=comparison.divergence) if name in OBJECTIVES else name
    return plane_chart(
        series, "trial", f"{objective}, lower is better", show_tick, show_tick,
        description="Objective of each trial and the best so far", width=960, height=320,
    )  # fmt: skip


def _best_so_far(valued: Sequence[tuple[TrialRecord, float]]) -> list[tuple[float, float]]:
    best, points = math.inf, []
    for trial, value in sorted(valued, key=lambda pair: pair[0].number):
        best = min(best, value)
        points.append((float(trial.number), best))
    return points


def _params(trial: TrialRecord) -> str:
    return ", ".join(f"{name} {show_number(value)}" for name, value in trial.params.items())


def training_figure(curves: Curves, comparison: TeacherComparison) -> Markup | None:
    """Returns the loss that was minimised, per optimizer step."""
    points = [(float(point.step), point.loss) for point in curves.train if math.isfinite(point.loss)]
    if not points:
        return None
    return plane_chart(
        [Series("training loss", points, "s1")], "optimizer step", comparison.loss, show_tick, show_tick,
        description="Training loss over optimizer steps",
    )  # fmt: skip


def validation_figure(curves: Curves, comparison: TeacherComparison) -> Markup | None:
    """Returns the divergence on held-out rows, ± 1 standard error: before, after, and rounded to 4 bits.

    None where nothing is known, or where the student was its own teacher.
    """
    if curves.student_was_teacher:
        return None
    rows = [
        ("before", curves.validation_kl_before, curves.validation_kl_before_standard_error, "s5"),
        ("after", curves.validation_kl_after, curves.validation_kl_after_standard_error, "s3"),
        (
            "after, rounded to nearest",
            curves.validation_kl_rounded,
            curves.validation_kl_rounded_standard_error,
            "s4",
        ),
    ]
    bars = [
        Bar(name, kl, f"{kl:.3f}" + (f" ± {error:.3f}" if error is not None else ""), error or 0.0, class_)
        for name, kl, error, class_ in rows
        if kl is not None and math.isfinite(kl)
    ]
    if not bars:
        return None
    return bar_chart(
        bars, f"{comparison.divergence}(teacher ‖ student) at T = 1, nats per token", show_tick, width=470,
        description=f"Validation {comparison.divergence} before and after distillation",
    )  # fmt: skip


def accuracy_figure(scores: Sequence[TaskScore], quantizer: str = "GPTQ") -> Markup:
    """Returns one task's models in the order of their making, with ± 1 standard error."""
    names = model_names(quantizer)
    known = sorted(
        scores, key=lambda score: list(MODELS).index(score.model) if score.model in MODELS else len(MODELS)
    )
    bars = [
        Bar(
            names.get(score.model, score.model),
            score.share.value,
            show_accuracy(score.share.value, score.share.standard_error),
            score.share.standard_error,
            MODEL_CLASSES.get(score.model, "s6"),
        )
        for score in known
    ]
    high = min(1.0, math.ceil(max(bar.value + bar.error for bar in bars) * 10 + 0.5) / 10)
    return bar_chart(
        bars, "accuracy, ± 1 standard error", lambda v: show_percent(v, 0), high=high, width=470,
        description=f"Accuracy on {scores[0].task}",
    )  # fmt: skip


def difference_figure(compared: Sequence[Difference], quantizer: str = "GPTQ") -> Markup:
    """Returns each step's change of accuracy with ± 1 and ± 1.96 standard errors."""
    names = model_names(quantizer)
    several = len({one.task for one in compared}) > 1
    rows = [
        Bar(
            (f"{one.task}: " if several else "") + f"{names[one.before]} → {names[one.after]}",
            one.difference * 100,
            show_difference(one) + ("" if one.paired else ", unpaired"),
            one.standard_error * 100,
            "s1",
            f"{one.rows} rows, {'paired' if one.paired else 'unpaired'}",
        )
        for one in compared
    ]
    return interval_chart(
        rows, "change of accuracy, percentage points", show_signed, width=960,
        description="Change of accuracy from step to step",
    )  # fmt: skip


def memory_figure(plan: PlanRecord, measured_bytes: int) -> Markup:
    """Predicted against measured peak."""
    unit, size = byte_unit(max(plan.budget_bytes, measured_bytes))
    predicted = f"{format_bytes(plan.predicted_peak_bytes)} ± {format_bytes(plan.error_bytes)}"
    bars = [
        Bar("predicted", plan.predicted_peak_bytes / size, predicted, plan.error_bytes / size, "s6"),
        Bar("measured", measured_bytes / size, format_bytes(measured_bytes)),
    ]
    limit = Reference(plan.budget_bytes / size, f"budget {format_bytes(plan.budget_bytes)}")
    return bar_chart(
        bars, f"peak memory of the engine, {unit}", show_tick, references=[limit], width=960,
        description="Predicted and measured peak memory",
    )  # fmt: skip


def stage_time_figure(stages: Sequence[StageRecord]) -> Markup:
    """Returns where the time went."""
    total = sum(stage.seconds for stage in stages) or 1.0
    minutes = max(stage.seconds for stage in stages) >= 180
    bars = [
        Bar(
            stage.stage,
            stage.seconds / (60 if minutes else 1),
            f"{show_seconds(stage.seconds)}, {show_percent(stage.seconds / total, 0)}",
        )
        for stage in stages
    ]
    return bar_chart(
        bars,
        "minutes" if minutes else "seconds",
        show_tick,
        width=960,
        description="Time taken by each stage",
    )

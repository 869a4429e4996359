"""The run in a sentence and a handful of numbers; the HTML report and the terminal show the same."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edgewright.sizes import format_bytes
from edgewright_builder.bench.tables import gaps_of
from edgewright_builder.fit.meets_budget import PeakBound
from edgewright_builder.report.formats import show_accuracy, show_percent, show_points, show_seconds
from edgewright_builder.report.inputs import RunInputs
from edgewright_builder.report.records import TaskScore
from edgewright_builder.run.resumable_run import STAGES
from edgewright_builder.tasks.accuracy import paired_difference

Tone = Literal["good", "warn", "bad", "plain", "absent"]

# In the order of their making; how the report names them (`model_names`).
MODELS = {
    "teacher": "teacher",
    "student": "student before",
    "finetuned": "fine-tuned",
    "quantized": "{quantizer}, 4 bits",
    "recovered": "recovered, 4 bits",
    "exported": "exported, on the host",
    "device": "on the device",
}


def model_names(quantizer: str) -> dict[str, str]:
    """Returns how the report names the models of a build whose weights `quantizer` rounded."""
    return {model: name.format(quantizer=quantizer) for model, name in MODELS.items()}


@dataclass(frozen=True)
class Headline:
    """The first thing to know."""

    tone: Tone
    text: str


@dataclass(frozen=True)
class KeyNumber:
    """One number with what it is compared to."""

    name: str
    value: str
    detail: str = ""
    tone: Tone = "plain"


def _not_measured(name: str, detail: str = "", value: str = "not measured") -> KeyNumber:
    return KeyNumber(name, value, detail, "absent")


@dataclass(frozen=True)
class Difference:
    """`after` minus `before` on the same rows; `paired` if the standard error is that of the row-wise differences."""

    task: str
    before: str
    after: str
    difference: float
    standard_error: float
    rows: int
    paired: bool


def verdict(inputs: RunInputs) -> Headline:
    """Returns whether it fits, by measurement if there is one, else by prediction."""
    plan, peak = inputs.plan, inputs.measured_peak_bytes
    if plan is None:
        return Headline("plain", "No plan yet: the build has not chosen a configuration.")
    budget = format_bytes(plan.budget_bytes)
    if peak is not None:
        spare = plan.budget_bytes - peak
        if spare >= 0:
            return Headline(
                "good",
                f"It fits: measured peak {format_bytes(peak)} of {budget}, {format_bytes(spare)} to spare.",
            )
        return Headline(
            "bad",
            f"Over budget: measured peak {format_bytes(peak)} exceeds {budget} by {format_bytes(-spare)}.",
        )
    predicted = f"{format_bytes(plan.predicted_peak_bytes)} ± {format_bytes(plan.error_bytes)}"
    bound = PeakBound(plan.predicted_peak_bytes, plan.error_bytes, plan.budget_bytes)
    if bound.fits:
        return Headline(
            "warn", f"Predicted to fit: peak {predicted} of {budget}. Not measured on a device yet."
        )
    if bound.may_fit:
        return Headline(
            "warn", f"Likely to fit: predicted peak {predicted} of {budget}; the interval reaches over it."
        )
    return Headline("bad", f"Predicted not to fit: peak {predicted} of {budget}.")


def unfinished_stages(inputs: RunInputs) -> list[str]:
    """Returns the stages that are not done, in order."""
    done = {stage.stage for stage in inputs.stages if stage.status == "done"}
    return [name for name in STAGES if name not in done]


def key_numbers(inputs: RunInputs) -> list[KeyNumber]:
    """Size, memory, accuracy, distillation, speed, latency, energy: in this order, measured or not."""
    return [
        _size(inputs),
        _memory(inputs),
        _accuracy(inputs),
        _kl(inputs),
        _speed(inputs),
        _latency(inputs),
        _energy(inputs),
    ]


def _size(inputs: RunInputs) -> KeyNumber:
    if inputs.manifest is None:
        return _not_measured("Artifact", value="not made yet")
    size = inputs.manifest.size_bytes
    bf16 = inputs.plan.bf16_bytes if inputs.plan else None
    detail = (
        f"{bf16 / size:.1f}× smaller than the student at bf16 ({format_bytes(bf16)})" if bf16 and size else ""
    )
    return KeyNumber("Artifact", format_bytes(size), detail)


def _memory(inputs: RunInputs) -> KeyNumber:
    plan, peak = inputs.plan, inputs.measured_peak_bytes
    if plan is None:
        return _not_measured("Peak memory") if peak is None else KeyNumber("Peak memory", format_bytes(peak))
    predicted = f"predicted {format_bytes(plan.predicted_peak_bytes)} ± {format_bytes(plan.error_bytes)}"
    budget = f"budget {format_bytes(plan.budget_bytes)}"
    if peak is None:
        return _not_measured("Peak memory", f"{predicted}, {budget}")
    tone: Tone = "good" if peak <= plan.budget_bytes else "bad"
    return KeyNumber("Peak memory", format_bytes(peak), f"{predicted}, {budget}", tone)


def _accuracy(inputs: RunInputs) -> KeyNumber:
    models = [
        model for model in MODELS if model != "teacher" and any(s.model == model for s in inputs.scores)
    ]
    if not models:
        return _not_measured("Accuracy")
    names = model_names(inputs.quantizer)
    first, last = models[0], models[-1]
    tasks = sorted(_tasks(inputs.scores, first) & _tasks(inputs.scores, last))
    name = "Accuracy, " + (tasks[0] if len(tasks) == 1 else f"mean of {len(tasks)} tasks")
    if not tasks or first == last:
        after = mean_score(inputs.scores, last, sorted(_tasks(inputs.scores, last)))
        return KeyNumber("Accuracy", show_accuracy(*after), names[last])
    before, after = (mean_score(inputs.scores, model, tasks) for model in (first, last))
    return KeyNumber(name, show_accuracy(*after), f"{names[last]}; {names[first]}: {show_accuracy(*before)}")


def _tasks(scores: Iterable[TaskScore], model: str) -> set[str]:
    return {score.task for score in scores if score.model == model}


def mean_score(scores: Iterable[TaskScore], model: str, tasks: list[str]) -> tuple[float, float]:
    """Mean accuracy over `tasks`, each counted once, and its standard error √Σ SE² / n (tasks are independent)."""
    chosen = [score.share for score in scores if score.model == model and score.task in tasks]
    mean = sum(share.value for share in chosen) / len(chosen)
    return mean, math.hypot(*(share.standard_error for share in chosen)) / len(chosen)


def _kl(inputs: RunInputs) -> KeyNumber:
    curves, name = inputs.curves, f"{inputs.comparison.title} to the teacher"
    if curves is None or curves.validation_kl_after is None:
        return _not_measured(name)
    error = curves.validation_kl_after_standard_error
    value = f"{curves.validation_kl_after:.3f}" + (f" ± {error:.3f}" if error is not None else "")
    before = curves.validation_kl_before
    if curves.student_was_teacher and (own := _kl_to_16_bits(inputs)) is not None:
        return own  # the student was the teacher, so leaving it was the point
    exported = next((rung.to_teacher.mean for rung in inputs.rungs if rung.model == "exported"), None)
    shipped = f", {exported:.3f} as it ships" if exported is not None else ""
    if before is None:
        return KeyNumber(name, value, "nats per token, T = 1, before quantization")
    if curves.student_was_teacher:
        return KeyNumber(name, value, f"nats per token; the student was the teacher{shipped}")
    change = show_percent(curves.validation_kl_after / before - 1, 0).replace("-", "−")
    detail = f"nats per token, {before:.3f} before ({change}){shipped}"
    return KeyNumber(name, value, detail)


def _kl_to_16_bits(inputs: RunInputs) -> KeyNumber | None:
    """Returns what 4 bits change: the exported model's divergence from the fine-tuned one."""
    distances = (rung.to_finetuned for rung in inputs.rungs if rung.model == "exported")
    distance = next(distances, None)
    if distance is None:
        return None
    value = f"{distance.mean:.3f} ± {distance.standard_error:.3f}"
    return KeyNumber("KL to the 16-bit model", value, "nats per token on held-out pairs, as it ships")


def _speed(inputs: RunInputs) -> KeyNumber:
    bench = inputs.bench
    if bench is None:
        return _not_measured("Generation")
    shape = f"{bench.input_tokens} tokens in, {bench.output_tokens} out, concurrency {bench.concurrency}"
    return KeyNumber("Generation", f"{bench.generated_tokens_per_second:.1f} tokens/s", shape)


def _latency(inputs: RunInputs) -> KeyNumber:
    if inputs.bench is None or not inputs.bench.time_to_first_token_seconds.count:
        return _not_measured("Time to first token")
    first, each = inputs.bench.time_to_first_token_seconds, inputs.bench.time_per_output_token_seconds
    detail = f"median; p99 {show_seconds(first.p99)}; then {show_seconds(each.p50)} per token"
    return KeyNumber("Time to first token", show_seconds(first.p50), detail)


def _energy(inputs: RunInputs) -> KeyNumber:
    if inputs.bench is None:
        return _not_measured("Energy")
    if not inputs.bench.HasField("energy"):
        return _not_measured("Energy", "so there is no figure for it", "no energy sensor")
    energy = inputs.bench.energy
    if not energy.HasField("gross_joules_per_output_token"):
        return _not_measured("Energy", gaps_of(energy))
    scope = "whole module" if energy.whole_module else f"rail {energy.rail} only"
    return KeyNumber(
        "Energy",
        f"{energy.gross_joules_per_output_token:.3g} J/token",
        f"{scope}, {energy.mean_watts:.2f} W mean",
    )


def differences(scores: Iterable[TaskScore]) -> list[Difference]:
    """For each task, each model against the one made before it, from the student on."""
    table = {(score.task, score.model): score for score in scores}
    compared: list[Difference] = []
    for task in sorted({task for task, _ in table}):
        chain = [table[task, model] for model in MODELS if model != "teacher" and (task, model) in table]
        compared += [_difference(before, after) for before, after in itertools.pairwise(chain)]
    return compared


def _difference(before: TaskScore, after: TaskScore) -> Difference:
    """Paired when both answered the same rows."""
    a, b = before.share, after.share
    paired = len(before.right) == len(after.right)
    if paired:
        value, error = paired_difference(before.right, after.right)
    else:
        value, error = b.value - a.value, math.hypot(a.standard_error, b.standard_error)
    return Difference(after.task, before.model, after.model, value, error, min(a.rows, b.rows), paired)


def show_difference(one: Difference) -> str:
    """`+5.2 ± 1.1 points`."""
    return show_points(one.difference, one.standard_error)

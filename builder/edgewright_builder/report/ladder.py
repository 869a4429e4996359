"""The ladder of a build: each model it made, what was measured of it, and what making it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgewright.sizes import format_bytes
from edgewright_builder.report.formats import show_accuracy, show_seconds
from edgewright_builder.report.inputs import RunInputs
from edgewright_builder.report.records import DivergenceRecord
from edgewright_builder.report.summary import Difference, differences, show_difference

# In the order of their making: the model, what made it, and the stages whose time that took.
STEPS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "teacher": ("T2, which the student learns from", ("teacher",)),
    "student": ("pruned to its depth", ("student",)),
    "finetuned": ("fine-tuned: LoRA, merged, 16 bits", ("search", "finetune")),
    "quantized": ("{quantizer}, 4 bits", ("quantize",)),
    "recovered": ("trained after {quantizer}, 4 bits", ("recover",)),
    "exported": ("as it ships, on the host", ("export",)),
    "device": ("as it serves, on the board", ()),
}
WHOLE = "whole, as it was"  # a student of which no layer is left out
CHECKPOINTS = {"quantized": "quantize", "recovered": "recover"}  # the stage that wrote it


@dataclass(frozen=True)
class LadderRow:
    """One line of the table; what was not measured is empty."""

    model: str
    step: str
    to_teacher: str
    to_finetuned: str
    accuracies: tuple[str, ...]  # one a task, each with its standard error
    changes: tuple[
        str, ...
    ]  # against the model above that was evaluated on the same rows, paired where possible
    size: str
    time: str

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The accuracy and its change, task by task."""
        return list(zip(self.accuracies, self.changes, strict=True))


def ladder(inputs: RunInputs) -> tuple[tuple[str, ...], list[LadderRow]]:
    """Returns the tasks, and a row for each model that anything is known of; none before the divergences are."""
    if not inputs.rungs:
        return (), []
    tasks = tuple(sorted({score.task for score in inputs.scores}))
    changes = {(each.task, each.after): each for each in differences(inputs.scores)}
    rows = [_row(model, inputs, tasks, changes) for model in STEPS]
    return tasks, [row for row in rows if row.to_teacher or row.to_finetuned or any(row.accuracies)]


def _row(
    model: str, inputs: RunInputs, tasks: tuple[str, ...], changes: Mapping[tuple[str, str], Difference]
) -> LadderRow:
    step, stages = STEPS[model]
    if model == "student" and inputs.plan is not None and inputs.plan.layers == inputs.plan.layers_full:
        step = WHOLE
    rung = next((each for each in inputs.rungs if each.model == model), None)
    own_teacher = inputs.curves is not None and inputs.curves.student_was_teacher
    shares = {score.task: score.share for score in inputs.scores if score.model == model}
    seconds = sum(stage.seconds for stage in inputs.stages if stage.stage in stages)
    return LadderRow(
        model=model,
        step=step.format(quantizer=inputs.quantizer),
        to_teacher=_nats(rung.to_teacher if rung and not own_teacher else None),
        to_finetuned=_nats(rung.to_finetuned if rung else None),
        accuracies=tuple(
            show_accuracy(shares[task].value, shares[task].standard_error) if task in shares else ""
            for task in tasks
        ),
        changes=tuple(
            show_difference(changes[task, model]) if (task, model) in changes else "" for task in tasks
        ),
        size=_size(model, inputs),
        time=show_seconds(seconds) if seconds else "",
    )


def _nats(divergence: DivergenceRecord | None) -> str:
    return "" if divergence is None else f"{divergence.mean:.3f} ± {divergence.standard_error:.3f}"


def _size(model: str, inputs: RunInputs) -> str:
    if model == "exported" and inputs.manifest is not None:
        return format_bytes(inputs.manifest.size_bytes)
    if model in ("student", "finetuned") and inputs.plan is not None and inputs.plan.bf16_bytes:
        return format_bytes(inputs.plan.bf16_bytes)
    if model in CHECKPOINTS:
        weights = (inputs.run / CHECKPOINTS[model] / "model").glob("*.safetensors")
        size_bytes = sum(file.stat().st_size for file in weights)
        return format_bytes(size_bytes) if size_bytes else ""
    return ""

"""The files of a run as a report reads them: one class for each kind of record.

Unknown keys are ignored, so that a stage may write more than the report shows.
"""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from edgewright_builder.tasks.accuracy import AccuracyEstimate, accuracy


@dataclass(frozen=True)
class PlannedDevice:
    """The device profile a run was planned for."""

    id: str
    name: str = ""


@dataclass(frozen=True)
class PlanRecord:
    """What `fit` chose, and the peak it predicts. All sizes in bytes."""

    device: PlannedDevice
    budget_bytes: int
    predicted_peak_bytes: int
    breakdown_bytes: dict[str, int]  # linear, embedding, norm, kv_cache, activation, engine
    error_bytes: int = 0  # half-width of the prediction's interval
    calibrated_on: str = ""
    context_tokens: int | None = None
    concurrency: int | None = None
    layers: int | None = None
    layers_full: int | None = None
    dropped_layers: tuple[int, ...] = ()
    weight_bits: int | None = None
    embedding_bits: int | None = None
    group_size: int | None = None
    kv_bits: int | None = None
    bf16_bytes: int | None = None  # of the student at 16 bits
    model: str = ""


@dataclass(frozen=True)
class StageRecord:
    """One stage's own account."""

    stage: str
    status: str
    seconds: float
    fingerprint: str = ""
    summary: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class TrialRecord:
    """One trial of the search; a lower value is better."""

    number: int
    state: str  # complete, diverged, interrupted
    value: float | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    seconds: float | None = None
    objective: str = "objective"


SAME_MODEL_NATS = 1e-3  # of KL before training: a student that is its own teacher, up to rounding


@dataclass(frozen=True)
class TrainPoint:
    """The training loss of one optimizer step."""

    step: int
    loss: float
    tokens: int | None = None


@dataclass(frozen=True)
class Curves:
    """How the final fine-tuning went. Divergences from the teacher are at T = 1 on held-out pairs, in nats per token;
    `teacher_comparison` names them.
    """

    train: tuple[TrainPoint, ...] = ()
    validation_kl_before: float | None = None
    validation_kl_before_standard_error: float | None = None
    validation_kl_after: float | None = None
    validation_kl_after_standard_error: float | None = None
    validation_kl_rounded: float | None = None  # after, with every linear rounded to 4 bits
    validation_kl_rounded_standard_error: float | None = None

    @property
    def student_was_teacher(self) -> bool:
        """Whether the student began as its own teacher: its distance from there is no figure of merit."""
        return self.validation_kl_before is not None and self.validation_kl_before < SAME_MODEL_NATS


@dataclass(frozen=True)
class DivergenceRecord:
    """KL(reference ‖ model) at temperature 1 on held-out pairs, in nats per token."""

    mean: float
    standard_error: float
    tokens: int


@dataclass(frozen=True)
class RungRecord:
    """One model of the build: how far it is from the teacher, and from the 16-bit fine-tuned model."""

    model: str
    to_teacher: DivergenceRecord
    to_finetuned: DivergenceRecord | None = None


@dataclass(frozen=True)
class EvaluatedRow:
    """One evaluated question: right by likelihood, and by likelihood per character."""

    id: str
    acc: bool
    acc_norm: bool


@dataclass(frozen=True)
class TaskRows:
    """A model's rows on one task, and which of the two counts there."""

    task: str
    metric: Literal["acc", "acc_norm"]
    outcomes: tuple[EvaluatedRow, ...] = Field(min_length=1)


@dataclass(frozen=True)
class DeviceTask:
    """A task as `edgewright eval` scored it through the agent: right or wrong, row by row."""

    task: str
    outcomes: tuple[bool, ...] = Field(min_length=1)


@dataclass(frozen=True)
class DeviceEvaluation:
    """All that `edgewright eval` asked of a board, and the release that answered; empty: not known."""

    results: tuple[DeviceTask, ...]
    release: str = ""


@plain_dataclass(frozen=True)
class TaskScore:
    """A model's rows on one task, right or wrong, in the order of the task."""

    task: str
    model: str
    right: tuple[bool, ...]

    @property
    def share(self) -> AccuracyEstimate:
        """The accuracy with its standard error."""
        return accuracy(self.right)


@dataclass(frozen=True)
class ProbeRecord:
    """One check of a release on trial."""

    name: str
    passed: bool = False
    required: bool = False
    detail: str = ""


@dataclass(frozen=True)
class BoardVerdict:
    """What the board made of the release."""

    outcome: str = ""  # committed, rolled_back, failed
    message: str = ""
    probes: tuple[ProbeRecord, ...] = ()


@dataclass(frozen=True)
class TransferRecord:
    """What had to be sent."""

    artifact_bytes: int


@dataclass(frozen=True)
class Push:
    """How the artifact reached the board."""

    release: str = ""  # SHA-256 of the manifest, in hex
    plan: TransferRecord | None = None
    sent_bytes: int | None = None
    resumptions: int = 0
    transfer_seconds: float | None = None
    verdict: BoardVerdict | None = None  # None: staged only

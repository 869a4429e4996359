"""What a report reads from a run folder. Every file may be missing: a run may be half done.

`plan.json`              PlanRecord
`STAGE/stage.json`       StageRecord, for each of edgewright_builder.run.resumable_run.STAGES
`data/attrition.json`    {"generated": n, REASON: dropped for it, …, "kept": n}, in the order of the checks
`search/trials.json`     [TrialRecord, …]
`finetune/curves.json`   Curves
`evaluate/MODEL/TASK.json`  TaskRows
`device/eval.json`       DeviceEvaluation
`artifact/manifest.json` edgewright.manifest.Manifest
`device/push.json`       Push, that is edgewright_builder.push.push.PushResult
`device/bench.json`      edgewright_builder.bench.results.Bench, on the device
`bench/finetuned.json`   the same on the host, before quantization
`bench/exported.json`    the same on the host, of what ships
`device/telemetry.json`  edgewright.v1.Snapshot as protobuf JSON, digests in hex
`recipe.yaml`            shown as it is

What was measured of another release than the run's artifact is left out: a build that is gone on with leaves it behind.
So is the artifact itself, and all that was measured, while such a build is under way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from dataclasses import field as plain_field
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import json_format
from pydantic import TypeAdapter, ValidationError

from edgewright.errors import InputError
from edgewright.manifest import Manifest, manifest_digest, parse_manifest
from edgewright.v1.telemetry_pb2 import BenchmarkResult, Snapshot
from edgewright_builder.bench.results import Bench, bench_from_json
from edgewright_builder.report.records import (
    Curves,
    DeviceEvaluation,
    PlanRecord,
    Push,
    RungRecord,
    StageRecord,
    TaskRows,
    TaskScore,
    TrialRecord,
)
from edgewright_builder.report.teacher_comparison import TeacherComparison, comparison_of
from edgewright_builder.run.resumable_run import STAGES, unfinished_stage

T = TypeVar("T")
NOT_MADE = "not made"  # in place of a digest: the build under way will replace the artifact


@plain_dataclass(frozen=True)
class RunInputs:
    """All that a run folder holds for the report; None or empty is "not measured"."""

    run: Path
    plan: PlanRecord | None = None
    stages: tuple[StageRecord, ...] = ()
    attrition: dict[str, int] = plain_field(default_factory=dict)
    trials: tuple[TrialRecord, ...] = ()
    curves: Curves | None = None
    rungs: tuple[RungRecord, ...] = ()
    scores: tuple[TaskScore, ...] = ()
    manifest: Manifest | None = None
    manifest_sha256: str = ""
    push: Push | None = None
    measured: Bench | None = None  # on the device
    before: Bench | None = None  # on the host, before quantization
    exported: Bench | None = None  # on the host, what ships
    telemetry: Snapshot | None = None
    recipe: str | None = None
    problems: tuple[str, ...] = ()  # files that are there and can't be read

    @property
    def fixed_hyperparameters(self) -> bool:
        """Whether the recipe fixed the hyperparameters, so that nothing was searched."""
        return any(stage.stage == "search" and "fixed" in stage.summary for stage in self.stages)

    @property
    def comparison(self) -> TeacherComparison:
        """How the student was held against the teacher."""
        return comparison_of(self.stages)

    @property
    def quantizer(self) -> str:
        """Returns the name of the method that quantized the weights."""
        by_autoround = any(stage.summary.get("method") == "autoround" for stage in self.stages)
        return "AutoRound" if by_autoround else "GPTQ"

    @property
    def bench(self) -> BenchmarkResult | None:
        """The device's typical run."""
        return self.measured.typical if self.measured else None

    @property
    def measured_peak_bytes(self) -> int | None:
        """The engine's highest measured memory on the device; None if it was not measured."""
        peaks = []
        if self.bench and self.bench.HasField("engine_peak_bytes"):
            peaks.append(self.bench.engine_peak_bytes)
        if self.telemetry and self.telemetry.memory.HasField("engine_peak_bytes"):
            peaks.append(self.telemetry.memory.engine_peak_bytes)
        return max(peaks, default=None)


@plain_dataclass
class _Folder:
    """Reads files of a run; what is there and can't be understood becomes a problem, not an exception."""

    run: Path
    artifact: str = ""  # the digest of the run's artifact, once it is known
    problems: list[str] = plain_field(default_factory=list)

    def read(self, path: str, parse: Callable[[bytes], T], missing: T) -> T:
        try:
            return parse((self.run / path).read_bytes())
        except FileNotFoundError:
            return missing
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = "".join(f", at {part}" for part in first["loc"][:1])
            self.problems.append(f"{path} can't be read: {first['msg']}{where}.")
        except (OSError, ValueError, KeyError, InputError, json_format.ParseError) as error:
            self.problems.append(f"{path} can't be read: {error}.")
        return missing

    def read_artifact(self) -> tuple[Manifest | None, str]:
        """Returns manifest and digest of the run's artifact; none of a build before the one that is under way."""
        manifest = self.read("artifact/manifest.json", parse_manifest, None)
        digest = self.read("artifact/manifest.json", manifest_digest, "")
        self.artifact = digest if manifest is not None else ""
        under_way = unfinished_stage(self.run)
        if manifest is None or under_way is None:
            return manifest, digest
        self.artifact = NOT_MADE
        self.problems.append(
            f"artifact is left out, and so is what was measured of it: it is of the build before, and this one is in "
            f"its stage {under_way}. Go on with it by --resume."
        )
        return None, ""

    def read_measured(self, path: str, parse: Callable[[bytes], tuple[str, T]], missing: T) -> T:
        """Returns the record of a file that `parse` gives with its release, unless that is not the run's artifact."""
        release, record = self.read(path, parse, ("", missing))
        if self.artifact == NOT_MADE:
            return missing
        if not release or not self.artifact or release == self.artifact:
            return record
        self.problems.append(
            f"{path} is left out: it is of the release {release[:12]}, and this run's artifact is "
            f"{self.artifact[:12]}. Push and measure this one."
        )
        return missing


def read_run(run: Path) -> RunInputs:
    """Everything in `run` that a report can show; raises InputError if `run` is no folder."""
    if not run.is_dir():
        raise InputError(f"A report needs a run folder; {run} is not a folder.")
    folder = _Folder(run)
    stages = (folder.read(f"{name}/stage.json", _as(StageRecord), None) for name in STAGES)
    manifest, digest = folder.read_artifact()
    no_scores: tuple[TaskScore, ...] = ()
    return RunInputs(
        run=run,
        plan=folder.read("plan.json", _as(PlanRecord), None),
        stages=tuple(stage for stage in stages if stage),
        attrition=folder.read("data/attrition.json", TypeAdapter(dict[str, int]).validate_json, {}),
        trials=folder.read("search/trials.json", TypeAdapter(tuple[TrialRecord, ...]).validate_json, ()),
        curves=folder.read("finetune/curves.json", _as(Curves), None),
        rungs=folder.read("ladder/ladder.json", TypeAdapter(tuple[RungRecord, ...]).validate_json, ()),
        scores=_host_scores(folder) + folder.read_measured("device/eval.json", _device_scores, no_scores),
        manifest=manifest,
        manifest_sha256=digest,
        push=folder.read_measured("device/push.json", _push, None),
        measured=folder.read_measured("device/bench.json", _bench, None),
        before=folder.read_measured("bench/finetuned.json", _bench, None),
        exported=folder.read_measured("bench/exported.json", _bench, None),
        telemetry=folder.read_measured("device/telemetry.json", _snapshot, None),
        recipe=folder.read("recipe.yaml", bytes.decode, None),
        problems=tuple(folder.problems),
    )


def _as(type_: type[T]) -> Callable[[bytes], T | None]:
    return TypeAdapter(type_).validate_json


def _host_scores(folder: _Folder) -> tuple[TaskScore, ...]:
    """Returns all of `evaluate/MODEL/TASK.json`, also those of an evaluation that is not over."""
    scores = []
    for path in sorted((folder.run / "evaluate").glob("*/*.json")):
        model = path.parent.name
        if rows := folder.read(f"evaluate/{model}/{path.name}", _as(TaskRows), None):
            right = tuple(row.acc if rows.metric == "acc" else row.acc_norm for row in rows.outcomes)
            scores.append(TaskScore(rows.task, model, right))
    return tuple(scores)


def _push(data: bytes) -> tuple[str, Push | None]:
    push = TypeAdapter(Push).validate_json(data)
    return push.release, push


def _device_scores(data: bytes) -> tuple[str, tuple[TaskScore, ...]]:
    evaluation = TypeAdapter(DeviceEvaluation).validate_json(data)
    return evaluation.release, tuple(
        TaskScore(one.task, "device", one.outcomes) for one in evaluation.results
    )


def _bench(data: bytes) -> tuple[str, Bench | None]:
    bench = bench_from_json(TypeAdapter(dict[str, Any]).validate_json(data))
    return bench.subject.release, bench


def _snapshot(data: bytes) -> tuple[str, Snapshot | None]:
    document = TypeAdapter(dict[str, Any]).validate_json(data)
    release = str(document.pop("active_release", ""))  # hex, which protobuf would read as base64
    return release, json_format.ParseDict(document, Snapshot(), ignore_unknown_fields=True)

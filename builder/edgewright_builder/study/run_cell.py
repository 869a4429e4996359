"""Runs one cell: the stages of a build up to the 4-bit model, then what a study measures of it.

Every stage lies on a shelf that all cells share, named after what it is made from, so nothing is computed twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright_builder.run.build_definition import Build
from edgewright_builder.run.resumable_run import FinishedStage, Run
from edgewright_builder.stages.data import run_data
from edgewright_builder.stages.finetune import kl_to_teacher, run_finetune
from edgewright_builder.stages.quantize import run_quantize
from edgewright_builder.stages.recover import run_recover, shipped
from edgewright_builder.stages.search import read_best, run_search
from edgewright_builder.stages.student import run_student
from edgewright_builder.stages.teacher import run_teacher
from edgewright_builder.study.cells import StudyCell
from edgewright_builder.study.measurements import (
    MODEL,
    run_accuracies,
    run_divergence,
    run_outliers,
)

if TYPE_CHECKING:
    from edgewright_builder.recipe.model_recipe import Recipe
    from edgewright_builder.run.progress import Reporter
    from edgewright_profiles import DeviceProfile

SHELF = "stages"


@dataclass(frozen=True)
class Workbench:
    """What all cells of a study are run with."""

    folder: Path  # the study's
    profile: DeviceProfile
    budget_bytes: int
    reporter: Reporter

    def build_of(self, recipe: Recipe) -> Build:
        """Returns the build of a cell. It never comes to a signature, so its key is nobody's."""
        run = Run(self.folder, self.reporter, shared=self.folder / SHELF)
        return Build(recipe, self.profile, self.budget_bytes, run, Ed25519PrivateKey.generate())


@dataclass(frozen=True)
class Finetuned:
    """The stages up to the 16-bit model."""

    build: Build
    stages: Mapping[str, FinishedStage]

    @property
    def kl(self) -> float:
        """KL(teacher ‖ 16-bit model) on held-out pairs, in nats per token."""
        return kl_to_teacher(self.stages["finetune"])


def run_cell(cell: StudyCell, bench: Workbench) -> dict[str, Any]:
    """Returns the cell's result: figures by name, `tasks` by task, and what each of its stages took."""
    began = time.monotonic()
    chosen, finetuned = _best(cell, bench)
    build, stages = finetuned.build, dict(finetuned.stages)
    stages["quantize"] = run_quantize(build, stages["data"], stages["finetune"], stages["search"])
    stages["recover"] = run_recover(build, stages["data"], stages["finetune"], stages["quantize"])
    final = shipped(stages["quantize"], stages["recover"])
    stages["divergence"] = run_divergence(build, stages["data"], stages["finetune"], final)
    stages["outliers"] = run_outliers(build, stages["data"], stages["student"], stages["finetune"])
    stages["evaluate_16"] = run_accuracies(build, stages["finetune"], quantized=False)
    stages["evaluate_4"] = run_accuracies(build, final, quantized=True)
    hyperparameters = read_best(stages["search"]).hyperparameters
    return {
        "tuned": chosen if hyperparameters.epochs > 0 else None,
        "hyperparameters": asdict(hyperparameters),
        "kl_16": finetuned.kl,
        **stages["divergence"].summary,
        **stages["outliers"].summary,
        "tasks": _accuracies(stages["evaluate_16"].folder, stages["evaluate_4"].folder),
        "stages": {f"{name} {stage.folder.name}": stage.seconds for name, stage in stages.items()},
        "seconds": round(time.monotonic() - began, 1),
    }


def _best(cell: StudyCell, bench: Workbench) -> tuple[str | None, Finetuned]:
    """Returns the level chosen for the tuned key and the cell's 16-bit model at it."""
    if not cell.candidates:
        return None, finetune_recipe(cell.recipe, bench)
    divergences = {each.level: finetune_recipe(each.trial, bench).kl for each in cell.candidates}
    best = min(cell.candidates, key=lambda each: divergences[each.level])
    return best.level, finetune_recipe(best.recipe, bench)


def finetune_recipe(recipe: Recipe, bench: Workbench) -> Finetuned:
    """Runs the stages up to the 16-bit model, or keeps them."""
    build = bench.build_of(recipe)
    job = build.distillation
    data = run_data(job)
    student = run_student(build, data)
    teacher = run_teacher(job, data)
    search = run_search(build, data, student, teacher)
    finetuned = run_finetune(build, data, student, teacher, search)
    stages = {"data": data, "student": student, "teacher": teacher, "search": search, "finetune": finetuned}
    return Finetuned(build, stages)


def _accuracies(sixteen: Path, four: Path) -> dict[str, dict[str, float]]:
    """Returns per task the accuracy at 16 and at 4 bits, by the task's own metric, and the rows."""
    before, after = _tasks(sixteen), _tasks(four)
    return {
        name: {
            "accuracy_16": before[name]["models"][MODEL][task["metric"]]["value"],
            "accuracy_4": task["models"][MODEL][task["metric"]]["value"],
            "rows": task["rows"],
        }
        for name, task in after.items()
    }


def _tasks(evaluated: Path) -> dict[str, Any]:
    tasks: dict[str, Any] = json.loads((evaluated / "results.json").read_text(encoding="utf-8"))["tasks"]
    return tasks

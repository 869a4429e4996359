"""A base that boards have and a recipe become an adapter, a signed artifact of a few percent of the base's bytes.

    data → teacher → finetune → evaluate → package

These are the stages of `pipeline/model_pipeline.py` without those that make the model: it is there, in 4 bits, and
stays as it is. Only `finetune` is another one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright import __version__
from edgewright.digests import digest_of
from edgewright.errors import InputError, RefusedError
from edgewright.manifest import Manifest
from edgewright.sizes import format_bytes
from edgewright.v1.common_pb2 import Reason
from edgewright_builder.fit.meets_budget import PeakBound, adapter_bound, adapter_bytes
from edgewright_builder.local_engine.engine import LocalEngine, local_engine, open_arithmetics
from edgewright_builder.pipeline.adapter_base import Base, require_slots
from edgewright_builder.pipeline.inputs_in_own_run import refuse_own_products
from edgewright_builder.pipeline.preflight import check_data, check_knowledge, check_tasks
from edgewright_builder.recipe.adapter_recipe import AdapterRecipe
from edgewright_builder.run.distillation_inputs import Distillation
from edgewright_builder.run.resumable_run import FinishedStage, Run
from edgewright_builder.stages.data import run_data
from edgewright_builder.stages.evaluate import EvaluatedModel, run_evaluate
from edgewright_builder.stages.finetune_adapter import ADAPTER_PATH, run_finetune_adapter
from edgewright_builder.stages.package import Contents, run_package
from edgewright_builder.stages.teacher import run_teacher
from edgewright_profiles import DeviceProfile


@dataclass(frozen=True)
class AdapterBuild:
    """One adapter: of what base, from what recipe, for what board, and where."""

    recipe: AdapterRecipe
    base: Base
    profile: DeviceProfile
    budget_bytes: int
    run: Run
    signing_key: Ed25519PrivateKey

    @cached_property
    def distillation(self) -> Distillation:
        """The base's 4-bit checkpoint as the student, and what it was before as T2 unless the recipe names one."""
        knowledge = self.recipe.teachers.knowledge
        teacher = str(self.base.unquantized) if knowledge is None else knowledge.model
        return Distillation(self.recipe, self.run, str(self.base.checkpoint), teacher)

    @property
    def modules(self) -> tuple[str, ...]:
        """What the adapter changes."""
        return self.recipe.adapter.modules or self.base.slots.modules


def preflight_adapter(build: AdapterBuild) -> None:
    """Raises the error that `build_adapter` would come to later, and leaves the run's folder as it is.

    A base and an adapter that do not fit are refused here: rank, modules and shapes say what they will take.
    """
    manifest, recipe = build.base.artifact.manifest, build.recipe
    refuse_own_products(recipe, build.run.folder)
    require_slots(build.base.slots, build.modules, recipe.adapter.rank)
    if build.profile.id not in manifest.device_profiles:
        made_for = ", ".join(manifest.device_profiles)
        raise InputError(
            f"The base was made for {made_for}, not for {build.profile.id}; give --device one of them."
        )
    _require_budget(build)
    if recipe.teachers.knowledge is None and not (build.base.unquantized / "config.json").is_file():
        raise InputError(f"{build.base.unquantized} is gone; name a model in `teachers.knowledge`.")
    check_tasks(recipe.evaluate, recipe.task)
    check_data(build.distillation)
    check_knowledge(build.distillation)


def build_adapter(build: AdapterBuild) -> FinishedStage:
    """Runs every stage that is not done; returns the last. `preflight_adapter` comes first. Raises EdgewrightError."""
    job = build.distillation
    data = run_data(job)
    teacher = run_teacher(job, data)
    finetuned = run_finetune_adapter(job, build.recipe, build.modules, data, teacher)
    evaluated = _evaluate(build, finetuned)
    return run_package(job, _contents(build, data, finetuned), data, evaluated, build.signing_key)


def _require_budget(build: AdapterBuild) -> None:
    bound = _bound(build)
    if not bound.fits:
        raise RefusedError(
            f"Base and adapter are predicted to take {format_bytes(bound.upper_bytes)} at most, the budget is "
            f"{format_bytes(build.budget_bytes)}. Lower `adapter.rank`, or build the base for a smaller budget.",
            Reason.REASON_MEMORY_BUDGET,
        )


def _bound(build: AdapterBuild) -> PeakBound:
    """Returns the predicted peak of the base with the adapter loaded, held against the budget."""
    size_bytes = adapter_bytes(build.distillation.architecture, build.modules, build.recipe.adapter.rank)
    return adapter_bound(build.base.artifact.manifest.memory, size_bytes, build.budget_bytes)


def _evaluate(build: AdapterBuild, finetuned: FinishedStage) -> FinishedStage:
    """Evaluates base and adapter on the same rows, both in the engine that serves."""
    base = served_identity(build.base.artifact.manifest)
    identities = {"base": base, "adapter": f"{base} {finetuned.output_digest}"}
    models = [
        EvaluatedModel("base", identities["base"], partial(_open_base, build, None)),
        EvaluatedModel("adapter", identities["adapter"], partial(_open_base, build, finetuned)),
    ]
    inputs = {"models": identities, "quiz": build.recipe.evaluate.quiz}
    return run_evaluate(build.distillation, models, inputs)


def served_identity(manifest: Manifest) -> str:
    """Returns a digest of what a release's answers depend on: neither of its name nor of where boards fetch it."""
    return digest_of(manifest.model_dump(mode="json", include={"engine", "model", "limits", "files"}))


def _open_base(build: AdapterBuild, finetuned: FinishedStage | None) -> AbstractContextManager[LocalEngine]:
    """Starts the base in the engine that will serve it, with the adapter or without."""
    base = build.base.artifact
    adapter = None if finetuned is None else finetuned.folder / ADAPTER_PATH
    return local_engine(base.folder, base.manifest, adapter=adapter)


def _contents(build: AdapterBuild, data: FinishedStage, finetuned: FinishedStage) -> Contents:
    size_bytes: int = finetuned.summary["adapter_bytes"]
    base = build.base.artifact

    def sizes(_: Path) -> dict[str, float]:
        share = size_bytes / base.manifest.size_bytes
        return {"size_bytes": size_bytes, "fraction_of_base": share}

    return Contents(
        inputs={"adapter": finetuned.output_digest},
        files={ADAPTER_PATH: finetuned.folder / ADAPTER_PATH},
        fields=_manifest_fields(build, data, finetuned),
        open_engines=partial(
            open_arithmetics, base.folder, base.manifest, adapter=finetuned.folder / ADAPTER_PATH
        ),
        sizes=sizes,
    )


def _manifest_fields(build: AdapterBuild, data: FinishedStage, finetuned: FinishedStage) -> dict[str, Any]:
    """Returns the fields of `Manifest` but `files`, `golden` and `accuracy`; what serves is the base's."""
    recipe, base, job = build.recipe, build.base.artifact, build.distillation
    shared = base.manifest.model_dump(
        mode="json", include={"engine", "model", "limits", "memory", "performance"}
    )
    shared["memory"]["predicted_peak_bytes"] = _bound(build).peak_bytes
    spec = {
        "base": base.digest,
        "path": ADAPTER_PATH,
        "modules": list(build.modules),
        "rank": recipe.adapter.rank,
    }
    lineage = {
        "edgewright": __version__,
        "base_checkpoint_sha256": job.student_digest,
        "knowledge_teacher_sha256": job.teacher_digest,
        "data_sha256": data.output_digest,
        "data_pairs": data.summary["pairs"],
        "recipe": recipe.portable(),
        "hyperparameters": asdict(recipe.hyperparameters),
    }
    return {
        **shared,
        "name": recipe.name,
        "version": recipe.version,
        "release_counter": recipe.release_counter or base.manifest.release_counter,
        "device_profiles": [build.profile.id],
        "adapter": spec,
        "lineage": lineage | {"training": finetuned.summary},
    }

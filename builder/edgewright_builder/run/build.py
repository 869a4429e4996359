"""What one build is to make, and what follows from that before anything is made: models, facts, the plan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright_builder.fit.architecture import Architecture, architecture_from_config
from edgewright_builder.fit.calibrate import calibration_for, measured_decodes
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.memory import Calibration
from edgewright_builder.fit.plan import BuildPlan, Wishes, make_plan
from edgewright_builder.fit.speed import Speed, predict_speed
from edgewright_builder.models import model_digest, read_config, resolve_model
from edgewright_builder.recipe.model import Recipe
from edgewright_builder.run.run import Run
from edgewright_profiles import DeviceProfile


@dataclass(frozen=True)
class Build:
    """One build: what to make, for what, and where."""

    recipe: Recipe
    profile: DeviceProfile
    budget_bytes: int
    run: Run
    signing_key: Ed25519PrivateKey

    @cached_property
    def base(self) -> Path:
        """The student before pruning."""
        return resolve_model(self.recipe.student.model)

    @cached_property
    def knowledge_teacher(self) -> Path:
        """T2."""
        return resolve_model(self.recipe.teachers.knowledge.model)

    @cached_property
    def base_digest(self) -> str:
        """Of the student before pruning; once, as it reads all weights."""
        return model_digest(self.base)

    @cached_property
    def knowledge_teacher_digest(self) -> str:
        """Of T2; once, as it reads all weights."""
        return model_digest(self.knowledge_teacher)

    @cached_property
    def architecture(self) -> Architecture:
        """Facts of the student before pruning."""
        return architecture_from_config(read_config(self.base))

    @cached_property
    def calibration(self) -> Calibration:
        """What is known of the engine's memory, on this board where it was measured there."""
        return calibration_for(self.recipe.serving.engine, self.profile.id)

    @cached_property
    def plan(self) -> BuildPlan:
        """The configuration to make."""
        return make_plan(
            self.architecture,
            wishes_of(self.recipe, self.architecture),
            self.budget_bytes,
            self.calibration,
        )

    def speed_of(self, plan: BuildPlan) -> Speed:
        """How fast one request alone should decode on the board, and what it should take."""
        measured = measured_decodes(plan.engine, self.profile.id)
        processor = engine_traits(plan.engine).processor
        return predict_speed(plan.memory, plan.configuration.concurrency, self.profile, processor, measured)


def wishes_of(recipe: Recipe, architecture: Architecture) -> Wishes:
    """What the recipe fixes of the plan."""
    student, quantize = recipe.student, recipe.quantize
    layers: int | None = None if student.depth == "auto" else architecture.layers
    if isinstance(student.depth, int):
        layers = student.depth
    if student.drop_layers is not None:
        layers = architecture.layers - len(set(student.drop_layers))
    return Wishes(
        context_tokens=recipe.serving.context_tokens,
        concurrency=recipe.serving.concurrency,
        layers=layers,
        group_size=None if quantize.group_size == "auto" else quantize.group_size,
        embedding_bits=None if quantize.embedding_bits == "auto" else quantize.embedding_bits,
    )

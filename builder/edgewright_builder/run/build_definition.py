"""One build of a model: what it is to make, and what follows from that before anything is made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright.errors import RefusedError
from edgewright.v1.common_pb2 import Reason
from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.board_refit import calibration_for, measured_decodes
from edgewright_builder.fit.check import processor_of
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.memory import Calibration
from edgewright_builder.fit.plan import BuildPlan, Wishes, make_plan, with_group_size
from edgewright_builder.fit.speed import Speed, predict_speed
from edgewright_builder.models.folder import read_config
from edgewright_builder.recipe.model_recipe import Recipe
from edgewright_builder.run.distillation_inputs import Distillation
from edgewright_builder.run.resumable_run import Run
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
    def distillation(self) -> Distillation:
        """The student before pruning, T2, and the recipe that brings them together."""
        recipe = self.recipe
        return Distillation(recipe, self.run, recipe.student.model, recipe.teachers.knowledge.model)

    @property
    def architecture(self) -> Architecture:
        """The facts of the student before pruning."""
        config = read_config(self.distillation.student)
        return engine_traits(self.recipe.serving.engine).architecture_of(
            self.distillation.architecture, config
        )

    @cached_property
    def calibration(self) -> Calibration:
        """What is known of the engine's memory, on this board where it was measured there."""
        return calibration_for(self.recipe.serving.engine, self.profile)

    @cached_property
    def plan(self) -> BuildPlan:
        """The plan before the search; it decides depth, context and embedding. Raises RefusedError if nothing fits."""
        wishes = wishes_of(self.recipe, self.architecture)
        return make_plan(self.architecture, wishes, self.budget_bytes, self.calibration)

    @cached_property
    def plans(self) -> tuple[BuildPlan, ...]:
        """The plan at each group size that the search may choose: h(m̂) meets the budget, before anything is trained.

        The plan's own group size, unless the recipe leaves the choice to the search. Raises RefusedError if none fits.
        """
        largest = self.architecture.largest_group_size()
        sizes: list[int] = [size for size in self.recipe.search.space.group_size if size <= largest]
        if not sizes:
            return (self.plan,)
        plans = [with_group_size(self.plan, self.architecture, size, self.calibration) for size in sizes]
        fitting = tuple(plan for plan in plans if plan.bound.fits)
        if not fitting:
            raise RefusedError(
                f"No group size of {sizes} keeps h(m̂) within the budget. Raise the budget or leave "
                "`search.space.group_size` out.",
                Reason.REASON_MEMORY_BUDGET,
            )
        return fitting

    def plan_with(self, group_size: int) -> BuildPlan:
        """Returns the plan at the group size that the search chose."""
        return next(plan for plan in self.plans if plan.configuration.group_size == group_size)

    def speed_of(self, plan: BuildPlan) -> Speed:
        """Returns how fast one request alone should decode on the board, and what it should take."""
        measured = measured_decodes(plan.engine, self.profile.id)
        processor = processor_of(engine_traits(plan.engine), self.profile)
        return predict_speed(plan.memory, plan.configuration.concurrency, self.profile, processor, measured)


def wishes_of(recipe: Recipe, architecture: Architecture) -> Wishes:
    """Returns what the recipe fixes of the plan."""
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

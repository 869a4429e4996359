"""Will this model fit that board? The answer with everything it rests on; nothing is fetched, nothing is run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from edgewright.errors import InputError
from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.board_refit import calibration_for, measured_decodes
from edgewright_builder.fit.changes_that_fit import Change, ranked_changes
from edgewright_builder.fit.engines import DEFAULT_ENGINE, engine_traits
from edgewright_builder.fit.engines.traits import EngineTraits
from edgewright_builder.fit.limits import largest_concurrency, largest_context
from edgewright_builder.fit.memory import Calibration, Configuration
from edgewright_builder.fit.model_facts import ModelFacts
from edgewright_builder.fit.plan import BuildPlan, Wishes, check_wishes, plan_for
from edgewright_builder.fit.proof.record import Proof, shipped_proof
from edgewright_builder.fit.provenance import caveats
from edgewright_builder.fit.speed import MeasuredDecode, Speed, predict_speed
from edgewright_profiles import DeviceProfile

DEFAULT_CONTEXT_TOKENS = 2048  # a recipe's default


class FitVerdict(Enum):
    """The answer, with the exit code that says it to a shell."""

    FITS = "fits"
    UNCERTAIN = "may not fit"  # the prediction does, its upper end does not
    DOES_NOT_FIT = "does not fit"
    NOT_SERVED = "can't be served"  # memory is not the reason

    @property
    def exit_code(self) -> int:
        """0 for yes, 1 for anything less."""
        return 0 if self is FitVerdict.FITS else 1


@dataclass(frozen=True)
class FitQuestion:
    """What is asked."""

    model: ModelFacts
    profile: DeviceProfile
    budget_bytes: int
    context_tokens: int
    concurrency: int
    calibration: Calibration
    decodes: tuple[MeasuredDecode, ...] = ()  # measured on that board


@dataclass(frozen=True)
class Check:
    """The answer."""

    question: FitQuestion
    verdict: FitVerdict
    why_not_served: str | None
    plan: BuildPlan  # whole depth, the engine's best bits
    largest_context_tokens: int
    largest_concurrency: int
    changes: tuple[Change, ...]  # none where it fits
    speed: Speed
    caveats: tuple[str, ...]  # where the prediction leaves what was measured
    proof: Proof | None  # that the engine computes what transformers computes; None: not proved

    @property
    def spare_bytes(self) -> int:
        """Budget less the upper end of the prediction; negative where it does not fit."""
        return self.plan.bound.spare_bytes


def make_question(
    model: ModelFacts,
    profile: DeviceProfile,
    *,
    budget_bytes: int | None = None,
    context_tokens: int | None = None,
    concurrency: int = 1,
    engine: str | None = None,
) -> FitQuestion:
    """Returns a question with its defaults filled in. Raises InputError for one that makes no sense."""
    kind = engine or DEFAULT_ENGINE
    served = engine_traits(kind).architecture_of(model.architecture, model.config)
    model = replace(model, architecture=served)
    if context_tokens is None:
        context_tokens = min(DEFAULT_CONTEXT_TOKENS, model.architecture.max_context_tokens)
    check_wishes(model.architecture, Wishes(context_tokens, concurrency))
    return FitQuestion(
        model=model,
        profile=profile,
        budget_bytes=profile.budget_bytes() if budget_bytes is None else budget_bytes,
        context_tokens=context_tokens,
        concurrency=concurrency,
        calibration=calibration_for(kind, profile),
        decodes=measured_decodes(kind, profile.id),
    )


def check(question: FitQuestion) -> Check:
    """Returns the answer to one question."""
    architecture, calibration = question.model.architecture, question.calibration
    plan = plan_for(architecture, asked_configuration(question), question.budget_bytes, calibration)
    refusal = why_not(question)
    return Check(
        question=question,
        verdict=_verdict(plan, refusal),
        why_not_served=refusal,
        plan=plan,
        largest_context_tokens=largest_context(plan, architecture, calibration),
        largest_concurrency=largest_concurrency(plan, architecture, calibration),
        changes=() if plan.bound.fits or refusal else ranked_changes(plan, architecture, calibration),
        speed=predict_speed(
            plan.memory, question.concurrency, question.profile,
            processor_of(engine_traits(plan.engine), question.profile), question.decodes,
        ),
        caveats=(*_untried(plan.engine), *caveats(calibration, architecture, plan.configuration)),
        proof=None if refusal else proof_of(question),
    )  # fmt: skip


def _untried(engine: str) -> tuple[str, ...]:
    if engine_traits(engine).tried:
        return ()
    return (
        f"No board has run {engine} for Edgewright yet: its memory and speed are others' published figures.",
    )


def asked_configuration(question: FitQuestion) -> Configuration:
    """Returns what `build` would start from: every layer, and the engine's best group and bits."""
    traits, architecture = engine_traits(question.calibration.engine), question.model.architecture
    return Configuration(
        layers=architecture.layers,
        weight_bits=traits.weight_bits,
        group_size=_group_size(traits, architecture),
        embedding_bits=traits.embedding_bits[0],
        context_tokens=question.context_tokens,
        concurrency=question.concurrency,
        kv_bits=traits.kv_bits[0],
    )


def _group_size(traits: EngineTraits, architecture: Architecture) -> int:
    """Returns the engine's best group size; where it has none for this model, which `why_not` tells, the largest."""
    fitting = [size for size in traits.group_sizes if size in architecture.group_sizes()]
    return fitting[0] if fitting else architecture.largest_group_size()


def processor_of(traits: EngineTraits, profile: DeviceProfile) -> Literal["cpu", "gpu"]:
    """Returns which processor computes there: an engine for GPUs takes the CPU of a board whose GPU has no CUDA."""
    has_cuda = profile.gpu is not None and profile.gpu.compute_capability is not None
    return "gpu" if traits.processor == "gpu" and has_cuda else "cpu"


def why_not(question: FitQuestion) -> str | None:
    """Returns why this engine can't serve this model on this board, memory aside; None if it can."""
    traits = engine_traits(question.calibration.engine)
    support = question.profile.engine(traits.kind)
    if support is not None and not support.supported.value:
        return f"{traits.kind} does not run on {question.profile.name}: {support.detail}"
    layers = question.model.architecture.layers
    why = traits.why_not(question.model.config, layers)
    return why or _why_no_group(traits, question.model.architecture)


def _why_no_group(traits: EngineTraits, architecture: Architecture) -> str | None:
    try:
        traits.plan_group_sizes(architecture)
    except InputError as error:
        return str(error).rstrip(".")
    return None


def is_proved(question: FitQuestion) -> bool:
    """Whether nothing is exported for this engine, or what is exported has been proved."""
    traits = engine_traits(question.calibration.engine)
    return traits.proof is None or proof_of(question) is not None


def proof_of(question: FitQuestion) -> Proof | None:
    """Returns the proof that ships for models that compute like this one.

    None where there is none, and for an engine that computes from the checkpoint itself.
    """
    traits = engine_traits(question.calibration.engine)
    return None if traits.proof is None else shipped_proof(question.model.config, traits.kind)


def _verdict(plan: BuildPlan, refusal: str | None) -> FitVerdict:
    if refusal is not None:
        return FitVerdict.NOT_SERVED
    if plan.bound.fits:
        return FitVerdict.FITS
    return FitVerdict.UNCERTAIN if plan.bound.may_fit else FitVerdict.DOES_NOT_FIT

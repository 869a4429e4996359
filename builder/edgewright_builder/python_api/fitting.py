"""Will it fit: answers from a model's configuration alone, before anything is downloaded or built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from edgewright.errors import InputError
from edgewright.sizes import format_bytes
from edgewright_builder.fit.catalogue import builtin_models
from edgewright_builder.fit.check import DEFAULT_CONTEXT_TOKENS, Check, FitVerdict, make_question
from edgewright_builder.fit.check import check as answer_question
from edgewright_builder.fit.display.document import (
    CheckDocument,
    MatrixDocument,
    SearchDocument,
    check_document,
    matrix_document,
    search_document,
)
from edgewright_builder.fit.display.matrix import matrix_markdown, print_matrix
from edgewright_builder.fit.display.terminal import breakdown, print_check, print_search
from edgewright_builder.fit.engine_recommendation import recommend
from edgewright_builder.fit.matrix import Cell, make_matrix
from edgewright_builder.fit.memory import PeakMemory
from edgewright_builder.fit.model_facts import find_model, from_builtin
from edgewright_builder.fit.plan import BuildPlan, PlanSearch, Wishes, search_plans
from edgewright_builder.python_api.arguments import as_path, budget_of, device_profile
from edgewright_builder.python_api.libraries import own_errors
from edgewright_builder.show.sheet import Drawn, Lines, Sheet, shown
from edgewright_profiles import DeviceProfile, list_profiles, load_profile

if TYPE_CHECKING:
    from edgewright_builder.fit.proof.record import Proof

CHART_CLASSES = ("s1", "s5", "s2", "s3", "s4", "s6")


@shown
@dataclass(frozen=True)
class Fit:
    """Whether a model fits a device under a budget, and everything the answer rests on. True where it fits."""

    answer: Check
    recommendation: str | None = None  # why this engine, where none was asked for

    def __bool__(self) -> bool:
        return self.fits

    @property
    def fits(self) -> bool:
        """Whether the upper end of the prediction is within the budget, and the engine serves the model there."""
        return self.answer.verdict is FitVerdict.FITS

    @property
    def verdict(self) -> str:
        """`fits`, `may not fit`, `does not fit` or `can't be served`."""
        return self.answer.verdict.value

    @property
    def reason(self) -> str | None:
        """Why it can't be served; None where memory alone decides."""
        return self.answer.why_not_served

    @property
    def predicted_peak_bytes(self) -> int:
        """The engine's peak memory."""
        return self.answer.plan.memory.peak_bytes

    @property
    def error_bytes(self) -> int:
        """Half the width of the prediction's interval."""
        return self.answer.plan.error_bytes

    @property
    def budget_bytes(self) -> int:
        """The most it may take."""
        return self.answer.plan.budget_bytes

    @property
    def spare_bytes(self) -> int:
        """Budget less the upper end of the prediction; negative where it does not fit."""
        return self.answer.spare_bytes

    @property
    def plan(self) -> BuildPlan:
        """The configuration that was judged: every layer, the engine's best bits."""
        return self.answer.plan

    def _document(self) -> CheckDocument:
        return check_document(self.answer, self.recommendation)

    def _sheet(self) -> Sheet:
        return Sheet(
            (Drawn(lambda console: print_check(console, self.answer, self.recommendation)),), self._pictures
        )

    def _pictures(self) -> Mapping[str, str]:
        if self.answer.verdict is FitVerdict.NOT_SERVED:
            return {}
        return {"Predicted peak memory": memory_chart(self.plan.memory, self.budget_bytes, self.error_bytes)}


@shown
@dataclass(frozen=True)
class PlanChoice:
    """The best configuration that fits, and those it was chosen from."""

    search: PlanSearch
    model: str
    device: str

    @property
    def chosen(self) -> BuildPlan:
        """Depth, bits, group size, context and concurrency, with what is predicted for them."""
        return self.search.chosen

    @property
    def front(self) -> tuple[BuildPlan, ...]:
        """The configurations that no other beats in every respect."""
        return tuple(self.search.front)

    def _document(self) -> SearchDocument:
        return search_document(self.search, self.model, self.device)

    def _sheet(self) -> Sheet:
        return Sheet((Drawn(self._print),), self._pictures)

    def _print(self, console: Console) -> None:
        print_search(console, self.search)

    def _pictures(self) -> Mapping[str, str]:
        plan = self.chosen
        return {
            "Predicted peak memory of the choice": memory_chart(
                plan.memory, plan.budget_bytes, plan.error_bytes
            )
        }


def check(
    model: str | Path,
    *,
    device: str | Path | DeviceProfile,
    budget: str | int | None = None,
    context_tokens: int | None = None,
    concurrency: int = 1,
    engine: str | None = None,
    prove: bool = False,
) -> Fit:
    """Returns whether a model fits a device, from its configuration alone.

    `model` is a built-in name, a hub id, a folder, a config.json or a GGUF file; `device` a profile's id, alias or YAML
    file. `budget` is a size such as "4GiB", or bytes; None: the profile's. `context_tokens`: 2,048 unless given.
    Without an `engine` the one that is predicted to be fastest there is taken, and the result says why.
    `prove` has a tiny random model of the same configuration exported, run and compared, which takes the builder's
    libraries. Raises InputError for what is not known.
    """
    facts, profile = find_model(_named(model, "the model")), device_profile(device)
    budget_bytes, reason = budget_of(profile, budget), None
    if engine is None:
        recommended = recommend(
            facts, profile, budget_bytes=budget_bytes, context_tokens=context_tokens, concurrency=concurrency
        )
        answer, reason = recommended.answer, recommended.why
    else:
        answer = answer_question(
            make_question(
                facts, profile, budget_bytes=budget_bytes, context_tokens=context_tokens,
                concurrency=concurrency, engine=engine,
            )
        )  # fmt: skip
    if prove and answer.why_not_served is None:
        answer = replace(answer, proof=_proof(answer))
    return Fit(answer, reason)


def _proof(answer: Check) -> Proof:
    from edgewright_builder.parity.prove import require_proof

    with own_errors():
        return require_proof(answer.question.model.config, answer.plan.engine)


def plan(
    model: str | Path,
    *,
    device: str | Path | DeviceProfile,
    budget: str | int | None = None,
    context_tokens: int = 2048,
    concurrency: int = 1,
    engine: str | None = None,
) -> PlanChoice:
    """Returns the best configuration that fits: depth, bits, group size, context and concurrency.

    It has room for `context_tokens` and `concurrency` at least. Without an `engine` it is the recommended one.
    Raises RefusedError if nothing fits, and as `check`.
    """
    from edgewright_builder.fit.board_refit import calibration_for
    from edgewright_builder.fit.engines import engine_traits

    facts, profile = find_model(_named(model, "the model")), device_profile(device)
    wanted = budget_of(profile, budget)
    if engine is None:
        engine = recommend(
            facts, profile, budget_bytes=wanted, context_tokens=context_tokens, concurrency=concurrency
        ).engine
    search = search_plans(
        engine_traits(engine).architecture_of(facts.architecture, facts.config),
        Wishes(context_tokens, concurrency, at_least=True),
        profile.budget_bytes() if wanted is None else wanted,
        [calibration_for(engine, profile)],
    )
    return PlanChoice(search, facts.name, profile.id)


@dataclass(frozen=True)
class KnownModel:
    """A model whose configuration is built in."""

    name: str
    hub_id: str
    parameters: int


@shown
@dataclass(frozen=True)
class KnownModels:
    """The models whose configuration is built in."""

    models: tuple[KnownModel, ...]

    def __iter__(self) -> Iterator[KnownModel]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def _sheet(self) -> Sheet:
        lines = [f"{each.name:28}{each.parameters / 1e9:7.2f} B  {each.hub_id}" for each in self.models]
        return Sheet((Lines(lines),))


@shown
@dataclass(frozen=True)
class FitMatrix:
    """Every built-in model on every built-in board: rows of models, a cell for each board."""

    rows: tuple[tuple[Cell, ...], ...]

    @property
    def markdown(self) -> str:
        """The matrix as a Markdown table."""
        return matrix_markdown(self.rows)

    def _document(self) -> MatrixDocument:
        return matrix_document(self.rows)

    def _sheet(self) -> Sheet:
        return Sheet((Drawn(lambda console: print_matrix(console, self.rows)),))


def models() -> KnownModels:
    """Returns the models whose configuration is built in, so that `check` needs no download."""
    return KnownModels(
        tuple(KnownModel(each.name, each.hub_id, each.parameters) for each in builtin_models())
    )


def check_all(*, context_tokens: int | None = None, engine: str | None = None) -> FitMatrix:
    """Returns what fits of every built-in model on every built-in board."""
    rows = make_matrix(
        [from_builtin(model) for model in builtin_models()],
        [load_profile(profile) for profile in list_profiles() if profile != "this-host"],
        context_tokens=DEFAULT_CONTEXT_TOKENS if context_tokens is None else context_tokens,
        engine=engine,
    )
    return FitMatrix(tuple(map(tuple, rows)))


def memory_chart(memory: PeakMemory, budget_bytes: int, error_bytes: int) -> str:
    """Returns the parts of a predicted peak against the budget, as SVG."""
    from edgewright_builder.report.charts import Bar, Marker, Reference, stacked_bar

    bars = [
        Bar(name, float(size), format_bytes(size), class_=CHART_CLASSES[index % len(CHART_CLASSES)])
        for index, (name, size, _) in enumerate(part for part in breakdown(memory) if part[1])
    ]
    peak = format_bytes(memory.peak_bytes)
    marker = Marker(float(memory.peak_bytes), f"predicted {peak}", float(error_bytes))
    return str(
        stacked_bar(
            bars, "memory", lambda value: format_bytes(int(value)), markers=[marker],
            limit=Reference(float(budget_bytes), f"budget {format_bytes(budget_bytes)}"),
            description="Parts of the predicted peak memory against the budget",
        )
    )  # fmt: skip


def _named(model: str | Path, what: str) -> str:
    if not isinstance(model, (str, Path)):
        raise InputError(f"For {what} {type(model).__name__} was given; expected a name or a path.")
    as_path(model, what)
    return str(model)  # as it was written: ./a/b is a folder, a/b may be a hub id

"""Every built-in model on every board: what fits, at which context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgewright_builder.fit.check import (
    DEFAULT_CONTEXT_TOKENS,
    asked_configuration,
    is_proved,
    make_question,
    why_not,
)
from edgewright_builder.fit.engine_recommendation import recommend
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.limits import largest_context, largest_depth
from edgewright_builder.fit.model_facts import ModelFacts
from edgewright_builder.fit.plan import DEPTH_FRACTION_MIN, plan_for
from edgewright_profiles import DeviceProfile

LEGEND = (
    "32k: the longest context that fits, one request, whole depth, 4-bit weights; 32k*: with a 4-bit embedding",
    "-25%: fits without that share of its layers; –: does not fit",
    "×: no engine runs there, or none is proved to compute what transformers computes for this model",
    "Boards in one column differ by less than a tenth; the figures are the smallest one's",
)
NEARLY = 0.9  # of the context or the layers


@dataclass(frozen=True)
class Cell:
    """One model on one board."""

    model: str
    board: str
    engine: str
    served: bool
    context_tokens: int  # the longest that fits at whole depth; 0 where less than wanted
    embedding_bits: int
    layers: int  # most that fit at the wanted context; 0 where half of them are too many
    layers_full: int

    @property
    def text(self) -> str:
        """The text that the matrix shows (see `LEGEND`)."""
        if not self.served:
            return "×"
        if self.context_tokens:
            return short_tokens(self.context_tokens) + ("*" if self.embedding_bits == 4 else "")
        if self.layers:
            return f"-{100 * (self.layers_full - self.layers) / self.layers_full:.0f}%"
        return "–"


@dataclass(frozen=True)
class Column:
    """All models on boards where each gets nearly the same answer; the cells are the smallest board's."""

    boards: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def served(self) -> bool:
        """Whether any model is."""
        return any(cell.served for cell in self.cells)

    @property
    def engine(self) -> str:
        """The engine of most models there."""
        return Counter(cell.engine for cell in self.cells).most_common(1)[0][0]

    def text_of(self, cell: Cell) -> str:
        """Returns what the matrix shows of a cell, with its engine where that is not the column's."""
        return cell.text if cell.engine == self.engine or not cell.served else f"{cell.text} ({cell.engine})"

    @property
    def labels(self) -> tuple[str, ...]:
        """The boards' short names."""
        return tuple(map(board_label, self.boards))


def columns_of(rows: Sequence[Sequence[Cell]]) -> list[Column]:
    """Returns the matrix by columns, in the order of `rows`; a board joins the column before it where that says
    enough.
    """
    columns: list[Column] = []
    for cells in zip(*rows, strict=True):
        before = columns[-1] if columns else None
        if before is not None and all(map(_nearly_same, before.cells, cells)):
            columns[-1] = replace(before, boards=(*before.boards, cells[0].board))
        else:
            columns.append(Column((cells[0].board,), tuple(cells)))
    return columns


def _nearly_same(smaller: Cell, larger: Cell) -> bool:
    """Whether what the smaller board does is a fair answer for the larger one too: true, and hardly less."""
    if not smaller.served or not larger.served:
        return smaller.served == larger.served
    return (
        smaller.engine == larger.engine
        and bool(smaller.context_tokens) == bool(larger.context_tokens)
        and bool(smaller.layers) == bool(larger.layers)
        and NEARLY * larger.context_tokens <= smaller.context_tokens <= larger.context_tokens
        and NEARLY * larger.layers <= smaller.layers <= larger.layers
    )


def make_matrix(
    models: Sequence[ModelFacts],
    boards: Sequence[DeviceProfile],
    *,
    context_tokens: int = DEFAULT_CONTEXT_TOKENS,
    engine: str | None = None,
) -> list[list[Cell]]:
    """Returns one row a model, one cell a board, the smallest budget first.

    Without an `engine` each cell is of the one recommended there. Raises InputError for an unknown engine.
    """
    ordered = sorted(boards, key=lambda board: board.budget_bytes())
    return [[_cell(model, board, context_tokens, engine) for board in ordered] for model in models]


def short_tokens(tokens: int) -> str:
    """131072 → 128k; 2560 → 2.5k."""
    return f"{tokens / 1024:.1f}".removesuffix(".0") + "k" if tokens < 10 * 1024 else f"{tokens // 1024}k"


def board_label(profile_id: str) -> str:
    """Returns a short name of a few words: jetson-orin-nano-8gb → Orin Nano 8GB."""
    words = (word for word in profile_id.split("-") if word not in ("jetson", "raspberry", "mini", "pc"))
    return " ".join(
        word.upper() if word in ("nx", "agx") or any(map(str.isdigit, word)) else word.title()
        for word in words
    )


def _cell(model: ModelFacts, board: DeviceProfile, context_tokens: int, engine: str | None) -> Cell:
    architecture = model.architecture
    wanted = min(context_tokens, architecture.max_context_tokens)
    if engine is None:
        engine = recommend(model, board, context_tokens=wanted).engine
    question = make_question(model, board, context_tokens=wanted, engine=engine)
    architecture = question.model.architecture  # as this engine serves it
    cell = Cell(model.name, board.id, engine, True, 0, 8, 0, architecture.layers)
    if why_not(question) is not None or not is_proved(question):
        return replace(cell, served=False)
    calibration = question.calibration
    for bits in engine_traits(engine).embedding_bits:
        configuration = replace(asked_configuration(question), embedding_bits=bits)
        plan = plan_for(architecture, configuration, question.budget_bytes, calibration)
        if (longest := largest_context(plan, architecture, calibration)) >= wanted:
            return replace(cell, context_tokens=longest, embedding_bits=bits, layers=architecture.layers)
    layers = largest_depth(plan, architecture, calibration)
    enough = layers >= max(1, round(DEPTH_FRACTION_MIN * architecture.layers))
    return replace(cell, embedding_bits=bits, layers=layers if enough else 0)

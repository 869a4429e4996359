"""Figures side by side: the mean of each group at each level, with its standard error over the cells."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgewright_builder.study.results import HYPERPARAMETERS, CellRow
from edgewright_builder.study.study_file import StudyFile

Name = Callable[[CellRow], str]
POINTS = 100.0
PLACE_HEADER = ("figure", "unit", "group", "level", "mean", "standard_error", "cells")


@dataclass(frozen=True)
class Mean:
    """The mean over cells that differ in their replicate alone, or in what the table does not show."""

    value: float
    standard_error: float | None  # None for a single cell
    cells: int

    def text(self, digits: int) -> str:
        """Returns the mean with its standard error."""
        error = "" if self.standard_error is None else f" ± {self.standard_error:.{digits}f}"
        return f"{self.value:.{digits}f}{error}"


@dataclass(frozen=True)
class LevelTable:
    """One figure of the groups (rows) at the levels (columns); a place without a finished cell is missing."""

    title: str
    unit: str
    digits: int
    groups: tuple[str, ...]
    levels: tuple[str, ...]
    means: Mapping[tuple[str, str], Mean]

    def lines(self) -> list[list[str]]:
        """Returns the table as text, its header first."""
        rows = [[group, *(self._text(group, level) for level in self.levels)] for group in self.groups]
        return [["", *self.levels], *rows]

    def places(self) -> list[list[object]]:
        """Returns a line for each place with a finished cell, as PLACE_HEADER names it."""
        return [
            [self.title, self.unit, group, level, mean.value, mean.standard_error, mean.cells]
            for (group, level), mean in self.means.items()
        ]

    def _text(self, group: str, level: str) -> str:
        mean = self.means.get((group, level))
        return "" if mean is None else mean.text(self.digits)


@dataclass(frozen=True)
class LevelFigure:
    """What a table of levels shows of each row."""

    title: str
    unit: str
    digits: int
    value: Callable[[CellRow], float]


ACCURACY_4 = LevelFigure("accuracy at 4 bits", "%", 1, lambda row: POINTS * row.figures["accuracy_4"])
ACCURACY_16 = LevelFigure("accuracy at 16 bits", "%", 1, lambda row: POINTS * row.figures["accuracy_16"])
DROP = LevelFigure("accuracy lost to 4 bits", "points", 1, lambda row: POINTS * row.accuracy_drop)
KL_PAIRS = LevelFigure("KL(16 bits ‖ 4 bits), held-out pairs", "nats", 4, lambda row: row.figures["kl_pairs"])


def level_tables(study: StudyFile, rows: Sequence[CellRow]) -> list[LevelTable]:
    """Returns what the compared factor's levels reach, group by group, then the surface that the study names."""
    tables = []
    if study.compare is not None:
        factor = study.compare.factor
        for figure in (ACCURACY_16, ACCURACY_4, DROP, KL_PAIRS):
            tables.append(level_table(figure, rows, group_name(study), lambda row: row.levels[factor]))
    if study.surface is not None:
        tables += [surface(figure, rows, study.surface) for figure in (KL_PAIRS, DROP)]
    return tables


def surface(figure: LevelFigure, rows: Sequence[CellRow], factors: tuple[str, str]) -> LevelTable:
    """Returns the figure over two factors, the first down and the second across."""
    down, across = factors
    table = level_table(figure, rows, lambda row: row.levels[down], lambda row: row.levels[across])
    title = f"{figure.title} by {down} and {across}"
    return LevelTable(title, table.unit, table.digits, table.groups, table.levels, table.means)


def level_table(figure: LevelFigure, rows: Sequence[CellRow], group: Name, level: Name) -> LevelTable:
    """Returns the means over the rows of each group and level, both in the order in which they first occur."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        values[group(row), level(row)].append(figure.value(row))
    means = {place: _mean(of_place) for place, of_place in values.items()}
    groups, levels = (tuple(dict.fromkeys(place[index] for place in values)) for index in (0, 1))
    return LevelTable(figure.title, figure.unit, figure.digits, groups, levels, means)


def group_name(study: StudyFile) -> Name:
    """Returns how a row's group is called: its task and the levels that are neither compared nor repeated."""
    compare = study.compare
    hidden = set() if compare is None else {compare.factor, compare.replicates}

    def name(row: CellRow) -> str:
        shown = [level for factor, level in row.levels.items() if factor not in hidden]
        return ", ".join(shown if row.task in shown else [*shown, row.task])

    return name


def training_lines(study: StudyFile, rows: Sequence[CellRow]) -> list[list[str]]:
    """Returns how the cells were trained, as the paper's table 6 does: one line for cells that were trained alike."""
    name = group_name(study)
    factor = "" if study.compare is None else study.compare.factor
    divergences: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in rows:
        place = (
            name(row),
            row.levels.get(factor, ""),
            *(row.training.get(key, "") for key in HYPERPARAMETERS),
        )
        divergences[place].append(row.figures["kl_16"])
    header = ["", factor, *HYPERPARAMETERS, "cells", "kl_16"]
    return [header, *([*place, str(len(kl)), _mean(kl).text(4)] for place, kl in divergences.items())]


def _mean(values: Sequence[float]) -> Mean:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return Mean(statistics.fmean(values), error, len(values))

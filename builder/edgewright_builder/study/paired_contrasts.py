"""The answers of a study: for every outcome and condition, what going from one level to the other changes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgewright_builder.study.equal_divergence import at_equal_divergence
from edgewright_builder.study.results import CellRow
from edgewright_builder.study.statistics import Estimate, Significance, estimate
from edgewright_builder.study.study_file import (
    PairedComparison,
    StudyFile,
    level_names,
    replicates_min,
)

POINTS = 100.0
PAIRS_MIN = 2


@dataclass(frozen=True)
class Outcome:
    """One figure that is compared."""

    key: str
    name: str
    unit: str
    value: Callable[[CellRow], float]
    is_accuracy: bool = False  # a row of its own for each task; the margin is in its unit


@dataclass(frozen=True)
class Contrast:
    """One outcome under one condition."""

    outcome: Outcome
    condition: str  # the levels of the factors that are neither compared, nor repeated, nor generalised over
    estimate: Estimate
    # at equal 16-bit divergence; None for that divergence itself, and where the pairs allow no line
    matched: Estimate | None
    groups: Mapping[str, Estimate]  # the same for each group alone, such as each task
    verdict: Significance | None  # of what is held against the margin; None while pairs are missing
    pairs_missing: int  # until every group has as many as the interval needs


OUTCOMES = (
    Outcome("accuracy_drop", "accuracy lost to 4 bits", "points", lambda row: POINTS * row.accuracy_drop, True),
    Outcome("accuracy_4", "accuracy at 4 bits", "points", lambda row: POINTS * row.figures["accuracy_4"], True),
    Outcome("accuracy_16", "accuracy at 16 bits", "points",
            lambda row: POINTS * row.figures["accuracy_16"], True),
    Outcome("kl_pairs", "KL(16 bits ‖ 4 bits), held-out pairs", "nats", lambda row: row.figures["kl_pairs"]),
    Outcome("kl_general", "KL(16 bits ‖ 4 bits), general text", "nats", lambda row: row.figures["kl_general"]),
    Outcome("kl_16", "KL(teacher ‖ 16 bits), held-out pairs", "nats", lambda row: row.figures["kl_16"]),
    Outcome("kurtosis_after", "kurtosis of the activations", "", lambda row: row.figures["kurtosis_after"]),
    Outcome("max_to_median_after", "largest to median channel", "",
            lambda row: row.figures["max_to_median_after"]),
)  # fmt: skip


@dataclass(frozen=True)
class _Pair:
    """One pair of cells that differ in the compared factor alone."""

    condition: str
    group: tuple[str, ...]  # the level that is generalised over, if any, and the task of an accuracy
    difference: float
    kl_difference: float  # of the 16-bit models, in nats per token


_Place = tuple[str, tuple[str, ...], str]  # condition, group, replicate


def contrasts(study: StudyFile, rows: Sequence[CellRow]) -> list[Contrast]:
    """Returns every contrast that the finished cells allow; none where the study compares nothing."""
    if study.compare is None:
        return []
    found = []
    for outcome in OUTCOMES:
        pairs = _pairs(outcome, study.compare, rows)
        for condition in dict.fromkeys(pair.condition for pair in pairs):
            own = [pair for pair in pairs if pair.condition == condition]
            if (contrast := _contrast(outcome, condition, own, study)) is not None:
                found.append(contrast)
    return found


def _contrast(outcome: Outcome, condition: str, pairs: Sequence[_Pair], study: StudyFile) -> Contrast | None:
    """Returns the contrast of groups with at least two pairs; None where there is none."""
    every = _grouped(pairs)
    used = {name: group for name, group in every.items() if len(group) >= PAIRS_MIN}
    if not used:
        return None
    differences = {name: [pair.difference for pair in group] for name, group in used.items()}
    whole = estimate(differences, study.interval)
    matched = None
    if outcome.key != "kl_16":
        both = {
            name: [(pair.kl_difference, pair.difference) for pair in group] for name, group in used.items()
        }
        matched = at_equal_divergence(both, study.interval)
    missing = _pairs_missing(pairs, study)
    verdict = whole.verdict(study.margin_points) if outcome.is_accuracy and not missing else None
    groups = {name: estimate({name: values}, study.interval) for name, values in differences.items()}
    return Contrast(outcome, condition, whole, matched, groups, verdict, missing)


def _pairs_missing(pairs: Sequence[_Pair], study: StudyFile) -> int:
    """Returns how many pairs are missing until every group of the study has as many as its interval needs."""
    needed = replicates_min(study.interval)
    few = sum(max(0, needed - len(group)) for group in _grouped(pairs).values())
    across = study.compare.across if study.compare is not None else None
    levels = level_names(study.factors[across]) if across is not None else []
    unseen = set(levels) - {pair.group[0] for pair in pairs if pair.group}
    return few + needed * len(unseen)


def _grouped(pairs: Sequence[_Pair]) -> dict[str, list[_Pair]]:
    grouped: dict[str, list[_Pair]] = defaultdict(list)
    for pair in pairs:
        grouped[" ".join(pair.group) or "all"].append(pair)
    return dict(grouped)


def _pairs(outcome: Outcome, compare: PairedComparison, rows: Sequence[CellRow]) -> list[_Pair]:
    """Returns the pairs that are complete, in the order of the rows."""
    sides: dict[_Place, dict[str, CellRow]] = defaultdict(dict)
    for row in rows:
        level = row.levels[compare.factor]
        if math.isfinite(outcome.value(row)):
            sides[_place(outcome, compare, row)].setdefault(level, row)
    before, after = compare.levels
    return [
        _Pair(
            condition,
            group,
            outcome.value(side[after]) - outcome.value(side[before]),
            side[after].figures["kl_16"] - side[before].figures["kl_16"],
        )
        for (condition, group, _), side in sides.items()
        if before in side and after in side
    ]


def _place(outcome: Outcome, compare: PairedComparison, row: CellRow) -> _Place:
    """Returns (condition, group, replicate): two rows of one place differ in the compared factor alone."""
    roles = {compare.factor, compare.replicates, compare.across}
    condition = ", ".join(f"{factor} {level}" for factor, level in row.levels.items() if factor not in roles)
    across = [row.levels[compare.across]] if compare.across is not None else []
    tasks = [row.task] if outcome.is_accuracy and row.task not in across else []
    return condition, (*across, *tasks), row.levels[compare.replicates]

"""The answers of a study: for every outcome and condition, what going from one level to the other changes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgewright_builder.study.results import CellRow
from edgewright_builder.study.statistics import Estimate, Significance, estimate, matched
from edgewright_builder.study.study_file import PairedComparison, StudyFile, replicates_min

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
    matched: Estimate | None  # at equal 16-bit divergence; None for that divergence itself
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
    group: str
    difference: float
    kl_difference: float  # of the 16-bit models, in nats per token


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
    differences = {name: values for name, values in _grouped(pairs).items() if len(values) >= PAIRS_MIN}
    if not differences:
        return None
    whole = estimate(differences, study.interval)
    at_equal = None
    if outcome.key != "kl_16":
        used = [pair for pair in pairs if pair.group in differences]
        values = matched([pair.difference for pair in used], [pair.kl_difference for pair in used])
        at_equal = estimate(_grouped(used, values), study.interval)
    missing = sum(max(0, replicates_min(study.interval) - len(values)) for values in differences.values())
    verdict = whole.verdict(study.margin_points) if outcome.is_accuracy and not missing else None
    groups = {name: estimate({name: values}, study.interval) for name, values in differences.items()}
    return Contrast(outcome, condition, whole, at_equal, groups, verdict, missing)


def _grouped(pairs: Sequence[_Pair], values: Sequence[float] | None = None) -> dict[str, list[float]]:
    grouped: dict[str, list[float]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        grouped[pair.group].append(pair.difference if values is None else values[index])
    return dict(grouped)


def _pairs(outcome: Outcome, compare: PairedComparison, rows: Sequence[CellRow]) -> list[_Pair]:
    """Returns the pairs that are complete, in the order of the rows."""
    sides: dict[tuple[str, str, str], dict[str, CellRow]] = defaultdict(dict)
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


def _place(outcome: Outcome, compare: PairedComparison, row: CellRow) -> tuple[str, str, str]:
    """Returns (condition, group, replicate): two rows of one place differ in the compared factor alone."""
    roles = {compare.factor, compare.replicates, compare.across}
    condition = ", ".join(f"{factor} {level}" for factor, level in row.levels.items() if factor not in roles)
    across = [row.levels[compare.across]] if compare.across is not None else []
    tasks = [row.task] if outcome.is_accuracy and row.task not in across else []
    return condition, " ".join([*across, *tasks]) or "all", row.levels[compare.replicates]

"""A file of the user's own: every distinct row of it is learned from, unless the evaluation holds its question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from edgewright_builder.data.alpaca import AlpacaRow, read_alpaca
from edgewright_builder.data.drop_counts import refuse_nothing
from edgewright_builder.data.similarity import Contamination


def select_rows(source: Path, contamination: Contamination) -> tuple[list[AlpacaRow], Counter[str]]:
    """Returns (rows, attrition) of a file: dropped are rows equal to an earlier one in everything, and rows whose
    question the evaluation holds.

    Raises InputError for a bad row (naming its line) or if nothing is left.
    """
    counts = Counter(dict.fromkeys(("generated", "contaminated", "duplicate", "kept"), 0))
    kept: dict[AlpacaRow, None] = {}
    for row in read_alpaca(source):
        counts["generated"] += 1
        if any(contamination.holds(question) for question in row.questions):
            counts["contaminated"] += 1
        elif row in kept:
            counts["duplicate"] += 1
        else:
            kept[row] = None
    counts["kept"] = len(kept)
    refuse_nothing(f"{source} left no row", len(kept), counts)
    return list(kept), counts


def dropped_line(source: Path, counts: Mapping[str, int]) -> str:
    """Returns a sentence that says how many of the file's rows were dropped, and why; empty if none was."""
    reasons = {
        "duplicate": "equal to an earlier row",
        "contaminated": "sharing eight words in a row with one question of the evaluation",
    }
    dropped = [f"{counts[name]} {reason}" for name, reason in reasons.items() if counts.get(name)]
    if not dropped:
        return ""
    return f"{counts['kept']} of {counts['generated']} rows of {source.name} are kept; dropped: {', '.join(dropped)}"

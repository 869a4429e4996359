"""A file of the user's own: which of its rows are learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from edgewright.errors import InputError
from edgewright_builder.data.alpaca import AlpacaRow, read_alpaca
from edgewright_builder.data.parsing import words
from edgewright_builder.data.similarity import Contamination, SeenTexts


def select_rows(source: Path, contamination: Contamination) -> tuple[list[AlpacaRow], Counter[str]]:
    """(rows, attrition) of an Alpaca file without repetitions and rows of the evaluation files; not cut to a size.

    Raises InputError for a bad row (naming its line) or if nothing is left.
    """
    seen = SeenTexts()
    counts = Counter(dict.fromkeys(("generated", "output_too_short", "contaminated", "duplicate", "kept"), 0))
    kept = []
    for row in read_alpaca(source):
        question = f"{row.instruction} {row.input}".strip()
        counts["generated"] += 1
        if not words(row.output):
            counts["output_too_short"] += 1
        elif question in contamination:
            counts["contaminated"] += 1
        elif not seen.add(question):
            counts["duplicate"] += 1
        else:
            kept.append(row)
    counts["kept"] = len(kept)
    refuse_nothing(f"{source} left no row", len(kept), counts)
    return kept, counts


def refuse_nothing(what: str, rows: int, counts: Mapping[str, int]) -> None:
    """Raises InputError with the counts where no row is left."""
    if rows == 0:
        detail = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)
        raise InputError(
            f"{what}, expected at least 1 ({detail or 'the file is empty'}); lower the filters or change the source"
        )

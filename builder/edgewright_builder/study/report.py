"""`study report`: one HTML page over a study's folder, its tables as CSV and Markdown, its figures as SVG."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from edgewright.durable import FileSystem, write_durably
from edgewright.errors import InputError
from edgewright_builder.report.bench_page import environment
from edgewright_builder.report.formats import show_seconds
from edgewright_builder.report.svg import standalone
from edgewright_builder.study.figures import forest_chart, forest_rows, level_chart, show_interval
from edgewright_builder.study.level_means import PLACE_HEADER, LevelTable, level_tables, training_lines
from edgewright_builder.study.paired_contrasts import Contrast, contrasts
from edgewright_builder.study.results import FIGURES, CellRow, Sharing, csv_text, read_rows, read_sharing
from edgewright_builder.study.run_study import STUDY_FILE
from edgewright_builder.study.statistics import Significance
from edgewright_builder.study.study_file import StudyFile, read_kept_study

ANSWERS = {
    Significance.DIFFERENT: "a difference",
    Significance.EQUIVALENT: "no difference that matters",
    Significance.OPEN: "not decided: the interval reaches beyond the margin and over zero",
}
HEADER = ("outcome", "condition", "difference", "interval", "at equal 16-bit divergence", "pairs", "answer")


@dataclass(frozen=True)
class ContrastView:
    """One contrast as the page shows it."""

    contrast: Contrast
    cells: tuple[str, ...]  # of the table, in the order of HEADER
    picture: Markup


def _require_factors(folder: Path, study: StudyFile, rows: Sequence[CellRow]) -> None:
    """Raises InputError where the cells were run with other factors than the study's file names now."""
    ran = set(rows[0].levels)
    if ran != set(study.factors):
        raise InputError(
            f"The cells of {folder} have the factors {', '.join(sorted(ran))}, its {STUDY_FILE} names "
            f"{', '.join(sorted(study.factors))}; run the study as it is now, in a folder of its own."
        )


def write_study_report(folder: Path) -> Path:
    """Writes `report.html`, the tables as CSV and Markdown, and `figures/*.svg`; returns the page's path.

    Raises InputError where the folder holds no study or no finished cell.
    """
    study = read_kept_study(folder / STUDY_FILE)
    rows = read_rows(folder)
    if not rows:
        raise InputError(f"No cell of {folder} is done; run the study before its report.")
    _require_factors(folder, study, rows)
    answers = [_answer(study, contrast) for contrast in contrasts(study, rows)]
    tables, training = level_tables(study, rows), training_lines(study, rows)
    _write(folder / "contrasts.csv", csv_text(_table(answers)))
    _write(folder / "contrasts.md", _markdown(_table(answers)))
    FileSystem().make_folder(folder / "figures")
    for answer in answers:
        _write(folder / "figures" / f"{_file_name(answer.contrast)}.svg", standalone(answer.picture))
    _write_tables(folder, tables, training)
    _write(folder / "report.html", _page(study, rows, answers, tables, training, read_sharing(folder)))
    return folder / "report.html"


def _write_tables(folder: Path, tables: Sequence[LevelTable], training: Sequence[Sequence[str]]) -> None:
    """Writes `levels` and `training`, the paper's tables 3, 4 and 6, and a figure of each table of levels."""
    places = [place for table in tables for place in table.places()]
    _write(folder / "levels.csv", csv_text([PLACE_HEADER, *places]))
    titled = [f"{table.title}, {table.unit}\n\n{_markdown(table.lines())}" for table in tables]
    _write(folder / "levels.md", "\n".join(titled))
    _write(folder / "training.csv", csv_text(training))
    _write(folder / "training.md", _markdown(training))
    for table in tables:
        _write(folder / "figures" / f"levels-{_named(table.title)}.svg", standalone(level_chart(table)))


def lines_of(folder: Path) -> list[str]:
    """Returns the answers as lines for a terminal."""
    study = read_kept_study(folder / STUDY_FILE)
    return [
        f"{contrast.outcome.name}{f' ({contrast.condition})' if contrast.condition else ''}: "
        f"{show_interval(contrast.estimate)} {contrast.outcome.unit}".rstrip()
        + (f", {answer}" if (answer := answer_of(contrast)) else "")
        for contrast in contrasts(study, read_rows(folder))
    ]


def answer_of(contrast: Contrast) -> str:
    """Returns what the interval says of an accuracy; nothing for another outcome."""
    if not contrast.outcome.is_accuracy:
        return ""
    if contrast.verdict is None:
        return f"not decided: {contrast.pairs_missing} pairs are missing"
    return ANSWERS[contrast.verdict]


def _answer(study: StudyFile, contrast: Contrast) -> ContrastView:
    value, outcome = contrast.estimate, contrast.outcome
    assert study.compare is not None
    before, after = study.compare.levels
    cells = (
        outcome.name,
        contrast.condition,
        f"{value.mean:+.4g} {outcome.unit}".rstrip(),
        f"{value.low:+.4g} to {value.high:+.4g}",
        "" if contrast.matched is None else show_interval(contrast.matched),
        f"{value.pairs} in {value.groups} groups",
        answer_of(contrast),
    )
    margin = study.margin_points if outcome.is_accuracy else None
    unit = f", {outcome.unit}" if outcome.unit else ""
    title = f"{outcome.name}: {after} − {before}{unit}"
    picture = forest_chart(forest_rows(contrast), title, description=title, margin=margin)
    return ContrastView(contrast, cells, picture)


def _page(
    study: StudyFile,
    rows: Sequence[CellRow],
    answers: Sequence[ContrastView],
    tables: Sequence[LevelTable],
    training: Sequence[Sequence[str]],
    sharing: Sharing | None,
) -> str:
    return environment().get_template("study.html.j2").render(
        study=study,
        answers=answers,
        header=HEADER,
        tables=[(table, level_chart(table)) for table in tables],
        training=training,
        rows=rows,
        figures=FIGURES,
        factors=list(rows[0].levels),
        tuned=any(row.tuned for row in rows),
        cells=len({row.cell for row in rows}),
        sharing=None if sharing is None else _sharing_line(sharing),
        random_groups=any(answer.contrast.estimate.random_groups for answer in answers),
    )  # fmt: skip


def _sharing_line(sharing: Sharing) -> str:
    return (
        f"The cells share stages: {show_seconds(sharing.shared_seconds)} of work instead of "
        f"{show_seconds(sharing.separate_seconds)}, {sharing.ratio:.2f} of what they cost one by one."
    )


def _table(answers: Iterable[ContrastView]) -> list[Sequence[str]]:
    return [HEADER, *(answer.cells for answer in answers)]


def _markdown(table: Sequence[Sequence[str]]) -> str:
    lines = [table[0], ["---"] * len(table[0]), *table[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _file_name(contrast: Contrast) -> str:
    return _named(f"{contrast.outcome.key} {contrast.condition}")


def _named(text: str) -> str:
    """Returns the text as a file is named."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text.strip())


def _write(path: Path, text: str) -> None:
    write_durably(FileSystem(), path, text.encode())

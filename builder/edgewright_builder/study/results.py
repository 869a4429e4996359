"""The results of a study as tables: `cells.csv` has a row per cell and task, `stages.csv` what each stage took."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.durable import FileSystem, write_durably
from edgewright.errors import InputError
from edgewright_builder.study.cells import StudyCell
from edgewright_builder.study.study_file import level_name

CELLS_CSV, STAGES_CSV = "cells.csv", "stages.csv"
FIGURES = (
    "accuracy_16", "accuracy_4", "kl_16", "kl_pairs", "kl_general", "kurtosis_before", "kurtosis_after",
    "max_to_median_before", "max_to_median_after",
)  # fmt: skip
HYPERPARAMETERS = (
    "optimizer", "learning_rate", "lora_rank", "lora_scale", "temperature", "alpha", "weight_decay", "epochs",
)  # fmt: skip
FACTOR_PREFIX = "factor:"


@dataclass(frozen=True)
class CellRow:
    """One cell on one task."""

    cell: str
    levels: Mapping[str, str]
    task: str
    rows: int
    tuned: str  # the level chosen for the tuned key; empty if none is tuned
    training: Mapping[str, str]  # how the cell was trained, by the names of HYPERPARAMETERS
    figures: Mapping[
        str, float
    ]  # by the names of FIGURES; accuracies as shares, divergences in nats per token

    @property
    def accuracy_drop(self) -> float:
        """What 4 bits cost, as a share: positive where they lose."""
        return self.figures["accuracy_16"] - self.figures["accuracy_4"]


@dataclass(frozen=True)
class Sharing:
    """What sharing stages saved."""

    shared_seconds: float  # of every stage once
    separate_seconds: float  # of every cell built alone

    @property
    def ratio(self) -> float:
        """The cost with sharing over the cost without."""
        return self.shared_seconds / self.separate_seconds


def rows_of(cells: Iterable[StudyCell], results: Mapping[str, Mapping[str, Any]]) -> list[CellRow]:
    """Returns a row per finished cell and task, in the order of the cells."""
    return [
        CellRow(
            cell.name,
            cell.levels,
            task,
            int(scores["rows"]),
            str(results[cell.name]["tuned"] or ""),
            _training(results[cell.name].get("hyperparameters", {})),
            {name: float(scores.get(name, results[cell.name].get(name, "nan"))) for name in FIGURES},
        )
        for cell in cells
        if cell.name in results
        for task, scores in results[cell.name]["tasks"].items()
    ]


def _training(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns a training's hyperparameters as text; a student that is not trained has none but its epochs."""
    if values.get("epochs") == 0:
        values = {"epochs": 0}
    return {name: level_name(values[name]) if name in values else "" for name in HYPERPARAMETERS}


def write_results(folder: Path, cells: Sequence[StudyCell], results: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes both tables."""
    rows = rows_of(cells, results)
    factors = list(cells[0].levels)
    header = ["cell", *(f"{FACTOR_PREFIX}{factor}" for factor in factors), "task", "rows", "tuned"]
    header += [*HYPERPARAMETERS, *FIGURES]
    lines = [
        [row.cell, *(row.levels[factor] for factor in factors), row.task, row.rows, row.tuned]
        + [row.training[name] for name in HYPERPARAMETERS]
        + [f"{row.figures[name]:.6g}" for name in FIGURES]
        for row in rows
    ]
    _write_csv(folder / CELLS_CSV, [header, *lines])
    stages = [
        [name, stage.split(" ")[0], stage.split(" ")[1], f"{seconds:.1f}"]
        for name, result in results.items()
        for stage, seconds in result["stages"].items()
    ]
    _write_csv(folder / STAGES_CSV, [["cell", "stage", "folder", "seconds"], *stages])


def read_rows(folder: Path) -> list[CellRow]:
    """Returns the rows of `cells.csv`. Raises InputError where it is missing or damaged."""
    with _damage_of(folder / CELLS_CSV) as lines:
        return [_row(line) for line in lines]


def _row(line: Mapping[str, str]) -> CellRow:
    levels = {
        key.removeprefix(FACTOR_PREFIX): value for key, value in line.items() if key.startswith(FACTOR_PREFIX)
    }
    return CellRow(
        line["cell"],
        levels,
        line["task"],
        int(line["rows"]),
        line["tuned"],
        {name: line[name] for name in HYPERPARAMETERS},
        {name: float(line[name]) for name in FIGURES},
    )


def read_sharing(folder: Path) -> Sharing | None:
    """Returns what sharing saved, by `stages.csv`; None before a cell is done. Raises as `read_rows`."""
    with _damage_of(folder / STAGES_CSV) as lines:
        seconds = [(line["folder"], float(line["seconds"])) for line in lines]
    return Sharing(sum(dict(seconds).values()), sum(spent for _, spent in seconds)) if seconds else None


def csv_text(lines: Iterable[Sequence[object]]) -> str:
    """Returns the lines as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _write_csv(path: Path, lines: Iterable[Sequence[object]]) -> None:
    write_durably(FileSystem(), path, csv_text(lines).encode())


@contextmanager
def _damage_of(path: Path) -> Iterator[list[dict[str, str]]]:
    """Yields the lines of a CSV file. Raises InputError where it is missing, and for what the body stumbles over."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, strict=True))
        if any(None in (*line, *line.values()) for line in lines):
            raise ValueError("a line is longer or shorter than the first")
        yield lines
    except FileNotFoundError:
        raise InputError(
            f"There is no {path.name} in {path.parent}; run the study before its report."
        ) from None
    except KeyError as error:
        raise InputError(
            f"{path} is damaged (there is no column {error}); run the study again with --resume."
        ) from None
    except (csv.Error, ValueError) as error:  # UnicodeDecodeError is one
        raise InputError(f"{path} is damaged ({error}); run the study again with --resume.") from None

"""How accurate the bytes that serve are: the result of `Board.eval`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgewright_builder.show.sheet import Grid, Sheet, shown

COLUMNS = ("task", "accuracy", "standard error", "rows")


@dataclass(frozen=True)
class TaskEvaluation:
    """Accuracy on one task, a fraction with its standard error, and which rows were right."""

    task: str
    model: str  # served
    metric: str  # acc, acc_norm
    accuracy: float
    standard_error: float
    rows: int
    outcomes: tuple[bool, ...]


@shown
@dataclass(frozen=True)
class Evaluation:
    """Accuracy on each task, in the order asked."""

    results: tuple[TaskEvaluation, ...]

    def __getitem__(self, task: str) -> TaskEvaluation:
        return next(each for each in self.results if each.task == task)

    def _sheet(self) -> Sheet:
        rows = [
            (each.task, f"{each.accuracy:.4f}", f"{each.standard_error:.4f}", str(each.rows))
            for each in self.results
        ]
        return Sheet((Grid(COLUMNS, rows),), self._pictures)

    def _pictures(self) -> Mapping[str, str]:
        from edgewright_builder.report.charts import Bar, bar_chart

        bars = [
            Bar(each.task, each.accuracy, f"{100 * each.accuracy:.1f} %", error=each.standard_error)
            for each in self.results
        ]
        chart = bar_chart(
            bars, "accuracy", lambda value: f"{100 * value:.0f} %", description="Accuracy by task", high=1.0
        )
        return {"Accuracy, with its standard error": str(chart)}

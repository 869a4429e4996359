"""How accurate the bytes that serve are: the result of `Board.eval`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgewright_builder.show.sheet import Grid, Sheet, shown

COLUMNS = ("task", "accuracy", "standard error", "rows")
COMPARED_COLUMNS = (*COLUMNS, "on the host", "difference, paired")


@dataclass(frozen=True)
class HostComparison:
    """What the build measured on the host for the same rows, and how far the board is from it."""

    model: str  # exported, or adapter
    accuracy: float
    difference: float  # board minus host
    standard_error: float  # of the difference, paired by rows


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
    host: HostComparison | None = None  # where a build was named to compare with


@shown
@dataclass(frozen=True)
class Evaluation:
    """Accuracy on each task, in the order asked."""

    results: tuple[TaskEvaluation, ...]
    release: str = ""  # SHA-256 of the manifest that was served, in hex

    def __getitem__(self, task: str) -> TaskEvaluation:
        return next(each for each in self.results if each.task == task)

    def _sheet(self) -> Sheet:
        compared = any(each.host for each in self.results)
        rows = [(*_measured(each), *(_on_host(each.host) if compared else ())) for each in self.results]
        return Sheet((Grid(COMPARED_COLUMNS if compared else COLUMNS, rows),), self._pictures)

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


def _measured(task: TaskEvaluation) -> tuple[str, ...]:
    return (task.task, f"{task.accuracy:.4f}", f"{task.standard_error:.4f}", str(task.rows))


def _on_host(host: HostComparison | None) -> tuple[str, ...]:
    if host is None:
        return ("", "")
    return (f"{host.accuracy:.4f}", f"{host.difference:+.4f} ± {host.standard_error:.4f}")

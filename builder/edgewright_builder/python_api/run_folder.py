"""A run: the folder in which a build works, with its artifact, its figures and its report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from edgewright.durable import write_json
from edgewright.errors import InputError
from edgewright_builder.artifact.artifact import Artifact, open_artifact
from edgewright_builder.push.push import PushResult
from edgewright_builder.python_api.results.bench import BenchReport
from edgewright_builder.python_api.results.evaluation import Evaluation
from edgewright_builder.python_api.results.telemetry import TelemetrySnapshot
from edgewright_builder.show.document import document
from edgewright_builder.show.sheet import Drawn, Lines, Sheet, shown

# Where a run's report looks for what was measured on a board.
PLACES: Mapping[type, str] = {
    PushResult: "push.json", BenchReport: "bench.json", Evaluation: "eval.json", TelemetrySnapshot: "telemetry.json",
}  # fmt: skip


@shown
@dataclass(frozen=True)
class RunFolder:
    """A build's folder, finished or not."""

    folder: Path

    @property
    def artifact(self) -> Artifact:
        """What was made. Raises InputError before the build has ended."""
        return open_artifact(self.folder / "artifact")

    @property
    def makes_adapter(self) -> bool:
        """Whether the run is an adapter's, which has no report."""
        return (self.folder / "finetune" / "adapter" / "model.onnx_adapter").is_file()

    def keep(self, result: PushResult | BenchReport | Evaluation | TelemetrySnapshot) -> Path:
        """Keeps a board's result in the run, so that its report shows it; returns the file. Raises InputError."""
        name = PLACES.get(type(result))
        if name is None:
            raise InputError(
                f"A run keeps no {type(result).__name__}; expected {', '.join(kind.__name__ for kind in PLACES)}."
            )
        path = self.folder / "device" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, document(result))
        return path

    def report(self) -> Path:
        """Writes `report.html` into the run from what it holds so far; returns its path. Raises InputError."""
        from edgewright_builder.report import write_report

        if self.makes_adapter:
            raise InputError(
                f"{self.folder} is the build of an adapter, of which there is no report: its figures are in "
                f"{self.folder / 'evaluate' / 'results.json'}, and `edgewright build` with --resume prints them again."
            )
        if not any((self.folder / name).is_file() for name in ("recipe.yaml", "plan.json")):
            raise InputError(
                f"{self.folder} is not a run: it has no recipe.yaml. `edgewright build` makes one."
            )
        return write_report(self.folder)

    def accuracy_lines(self) -> list[str]:
        """Returns base and adapter on each task with their standard errors; the difference is paired by rows."""
        results = json.loads((self.folder / "evaluate" / "results.json").read_text(encoding="utf-8"))
        return [_accuracy_line(name, task) for name, task in results["tasks"].items()]

    def _document(self) -> Mapping[str, Any]:
        artifact = self.artifact
        return {
            "folder": str(self.folder),
            "artifact": artifact.digest,
            "size_bytes": artifact.manifest.size_bytes,
        }

    def _sheet(self) -> Sheet:
        if self.makes_adapter:
            return Sheet((Lines([str(self.folder), *self.accuracy_lines()]),))
        return Sheet((Drawn(self._print),), self._pictures)

    def _print(self, console: Console) -> None:
        from edgewright_builder.report.terminal import ladder_table, summary_table

        console.print(summary_table(self.folder))
        if (steps := ladder_table(self.folder)) is not None:
            console.print(steps)

    def _pictures(self) -> Mapping[str, str]:
        from edgewright_builder.report.html import draw
        from edgewright_builder.report.inputs import read_run

        titles = {"budget": "Memory against the budget", "differences": "Accuracy, differences"}
        drawn = draw(read_run(self.folder))
        return {title: str(drawn[name]) for name, title in titles.items() if drawn.get(name)}


def open_run(folder: str | Path) -> RunFolder:
    """Returns the run in a folder. Raises InputError if there is none."""
    from edgewright_builder.python_api.arguments import as_path

    path = as_path(folder, "the run")
    if not path.is_dir():
        raise InputError(f"{path} is not a run: it has no recipe.yaml. `edgewright build` makes one.")
    return RunFolder(path)


def _accuracy_line(name: str, task: dict[str, Any]) -> str:
    base, adapter = (task["models"][model][task["metric"]] for model in ("base", "adapter"))
    difference = task["models"]["adapter"]["difference"]
    return (
        f"{name}, {task['rows']} rows: base {_percent(base)}, adapter {_percent(adapter)}, "
        f"{100 * difference['value']:+.1f} ± {100 * difference['standard_error']:.1f} points"
    )


def _percent(accuracy: dict[str, Any]) -> str:
    return f"{100 * accuracy['value']:.1f} ± {100 * accuracy['standard_error']:.1f} %"

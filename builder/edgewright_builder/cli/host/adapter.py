"""`edgewright build` of an adapter's recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from edgewright.sizes import format_bytes
from edgewright_builder.pipeline.adapter import AdapterBuild
from edgewright_builder.run.run import FinishedStage


def opening_line(job: AdapterBuild) -> str:
    """What will be made."""
    base, adapter = job.base.artifact, job.recipe.adapter
    return (
        f"{job.recipe.name} for {job.profile.name}: a rank-{adapter.rank} adapter of {', '.join(job.modules)} on "
        f"{base.manifest.name} {base.manifest.version} ({base.digest[:12]}, {format_bytes(base.manifest.size_bytes)})"
    )


def print_result(console: Console, package: FinishedStage, run: Path) -> None:
    """What was made, and what it changes."""
    summary = package.summary
    console.print(
        f"Adapter {summary['artifact'][:12]} in {run / 'artifact'}: {format_bytes(summary['size_bytes'])}, "
        f"{summary['fraction_of_base']:.1%} of its base",
        markup=False,
        soft_wrap=True,
    )
    for line in accuracy_lines(run / "evaluate" / "results.json"):
        console.print(line, markup=False, soft_wrap=True)


def accuracy_lines(results: Path) -> list[str]:
    """Base and adapter on each task with their standard errors; the difference is paired on the same rows."""
    tasks = json.loads(results.read_text(encoding="utf-8"))["tasks"]
    return [_accuracy_line(name, task) for name, task in tasks.items()]


def _accuracy_line(name: str, task: dict[str, Any]) -> str:
    base, adapter = (task["models"][model][task["metric"]] for model in ("base", "adapter"))
    difference = task["models"]["adapter"]["difference"]
    return (
        f"{name}, {task['rows']} rows: base {_percent(base)}, adapter {_percent(adapter)}, "
        f"{100 * difference['value']:+.1f} ± {100 * difference['standard_error']:.1f} points"
    )


def _percent(accuracy: dict[str, Any]) -> str:
    return f"{100 * accuracy['value']:.1f} ± {100 * accuracy['standard_error']:.1f} %"

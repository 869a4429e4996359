"""`edgewright build`: makes a signed artifact from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgewright_builder.cli.options import Credentials
from edgewright_builder.cli.output import stoppable
from edgewright_builder.python_api.building import make_order, run_order
from edgewright_builder.run.progress import Reporter

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Device = Annotated[str, typer.Option(help="A device profile's id or file.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="The run's folder.", show_default=False)]
Budget = Annotated[
    str | None, typer.Option(help="Most memory the model may take, like 180MiB; default: the profile's.")
]
Benchmarks = Annotated[
    Path | None,
    typer.Option(help="Folder of TASK/eval.jsonl; overrides the recipe's.", show_default=False),
]
Tasks = Annotated[
    str | None,
    typer.Option(help="Names with commas between, or paths of .jsonl files; overrides the recipe's."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first N rows of each task.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on in a run folder that exists.")]


@stoppable("Stopped. Run the same command again with --resume to go on.")
def build(
    recipe: RecipeFile,
    device: Device,
    out: Out,
    credentials: Credentials = None,
    budget: Budget = None,
    benchmarks: Benchmarks = None,
    tasks: Tasks = None,
    limit: Limit = None,
    resume: Resume = False,
) -> None:
    """Build a signed artifact: a model, or an adapter where the recipe names a `base`."""
    order = make_order(recipe, device, budget, out, credentials, benchmarks, tasks, limit, resume=resume)
    run_order(order, Reporter(Console(highlight=False)))

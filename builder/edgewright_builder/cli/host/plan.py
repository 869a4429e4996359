"""`edgewright plan`: the best configuration of a model that fits a device."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright_builder.cli.options import AsJson, Budget, Engine
from edgewright_builder.cli.output import console, emit
from edgewright_builder.show.sheet import print_result


def plan(
    model: Annotated[
        str,
        typer.Argument(help="A built-in name, hub id, folder, config.json or GGUF file.", show_default=False),
    ],
    device: Annotated[str, typer.Option(help="Device profile: an id, or a YAML file.", show_default=False)],
    budget: Budget = None,
    min_context: Annotated[int, typer.Option(help="Tokens it must have room for.")] = 2048,
    concurrency: Annotated[int, typer.Option(help="Requests at once, at least.")] = 1,
    engine: Engine = None,
    as_json: AsJson = False,
) -> None:
    """Find the best depth, bits, group size, context and concurrency that fit, and show what they were chosen from."""
    from edgewright_builder.python_api import fitting  # here, so that --help answers at once

    result = fitting.plan(
        model,
        device=device,
        budget=budget,
        context_tokens=min_context,
        concurrency=concurrency,
        engine=engine,
    )
    emit("plan", result, as_json=as_json)
    if not as_json:
        print_result(console(), result)

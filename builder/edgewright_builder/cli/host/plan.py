"""`edgewright plan`: the best configuration of a model that fits a device."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from edgewright.sizes import parse_bytes
from edgewright_builder.cli.options import AsJson, Budget, Engine
from edgewright_profiles import load_profile


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
    from edgewright_builder.fit.calibrate import calibration_for
    from edgewright_builder.fit.display.document import search_document
    from edgewright_builder.fit.display.terminal import print_search
    from edgewright_builder.fit.engines import ENGINES, engine_traits
    from edgewright_builder.fit.model_facts import find_model
    from edgewright_builder.fit.plan import Wishes, search_plans

    facts, profile = find_model(model), load_profile(device)
    kinds = [engine_traits(engine).kind] if engine else list(ENGINES)
    wishes = Wishes(min_context, concurrency, at_least=True)
    search = search_plans(
        facts.architecture,
        wishes,
        profile.budget_bytes() if budget is None else parse_bytes(budget),
        [calibration_for(kind, profile.id) for kind in kinds],
    )
    if as_json:
        typer.echo(json.dumps(search_document(search, facts.name, profile.id), indent=2))
    else:
        print_search(Console(highlight=False), search)

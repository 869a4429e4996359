"""`edgewright check`: whether a model fits, before anything is downloaded or built."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright.errors import InputError
from edgewright_builder.cli.given import refuse_with, refuse_without
from edgewright_builder.cli.options import AsJson, Budget, Engine
from edgewright_builder.cli.output import console, emit
from edgewright_builder.show.sheet import Shown, print_result

Model = Annotated[
    str | None,
    typer.Argument(help="A built-in name, hub id, folder, config.json or GGUF file.", show_default=False),
]
Device = Annotated[
    str | None, typer.Option(help="Device profile: an id, or a YAML file.", show_default=False)
]
Context = Annotated[
    int | None,
    typer.Option(help="Tokens of prompt and answer together. (default: 2048)", show_default=False),
]
Concurrency = Annotated[int, typer.Option(help="Requests at once.")]
AllModels = Annotated[bool, typer.Option("--all", help="Every built-in model on every board, as a matrix.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="With --all: as Markdown.")]
ListModels = Annotated[bool, typer.Option("--list", help="List the built-in models.")]
Prove = Annotated[
    bool,
    typer.Option(
        "--prove", help="Try a tiny model of this configuration; takes some 15 s, the answer is kept."
    ),
]

# Parameters that only `check` of one model takes.
ONE_MODEL = ("model", "device", "concurrency", "budget", "prove")


def check(
    ctx: typer.Context,
    model: Model = None,
    device: Device = None,
    context: Context = None,
    concurrency: Concurrency = 1,
    budget: Budget = None,
    engine: Engine = None,
    prove: Prove = False,
    all_models: AllModels = False,
    markdown: Markdown = False,
    list_models: ListModels = False,
    as_json: AsJson = False,
) -> None:
    """Say whether a model fits, from its configuration alone. Exit code 0: it fits; 1: it does not."""
    from edgewright_builder.python_api import fitting  # here, so that --help answers at once

    if list_models:
        refuse_with(ctx, "--list", *ONE_MODEL, "context", "engine", "all_models", "markdown")
        _show("models", fitting.models(), as_json=as_json)
        return
    if all_models:
        _check_all(ctx, context, engine, markdown=markdown, as_json=as_json)
        return
    refuse_without(ctx, "--all", "markdown")
    fit = fitting.check(
        _required(model, "MODEL"),
        device=_required(device, "--device"),
        budget=budget,
        context_tokens=context,
        concurrency=concurrency,
        engine=engine,
        prove=prove,
    )
    _show("check", fit, as_json=as_json)
    raise typer.Exit(fit.answer.verdict.exit_code)


def _check_all(
    ctx: typer.Context, context: int | None, engine: str | None, *, markdown: bool, as_json: bool
) -> None:
    from edgewright_builder.python_api import fitting

    refuse_with(ctx, "--all", *ONE_MODEL)
    if as_json:
        refuse_with(ctx, "--json", "markdown")
    matrix = fitting.check_all(context_tokens=context, engine=engine)
    if markdown:
        typer.echo(matrix.markdown)
    else:
        _show("matrix", matrix, as_json=as_json)


def _show(schema: str, result: Shown, *, as_json: bool) -> None:
    emit(schema, result, as_json=as_json)
    if not as_json:
        print_result(console(), result)


def _required(value: str | None, name: str) -> str:
    if value is None:
        raise InputError(f"{name} is missing: name a model and a device, or give --all or --list.")
    return value

"""`edgewright check`: whether a model fits, before anything is downloaded or built."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edgewright.errors import InputError
from edgewright.sizes import parse_bytes
from edgewright_builder.cli.given import refuse_with, refuse_without
from edgewright_builder.cli.options import AsJson, Budget, Engine
from edgewright_profiles import list_profiles, load_profile

if TYPE_CHECKING:  # `check` is to answer at once
    from edgewright_builder.fit.check import Check
    from edgewright_builder.fit.proof.record import Proof

Model = Annotated[
    str | None,
    typer.Argument(help="A built-in name, hub id, folder, config.json or GGUF file.", show_default=False),
]
Device = Annotated[
    str | None, typer.Option(help="Device profile: an id, or a YAML file.", show_default=False)
]

Prove = Annotated[
    bool,
    typer.Option(
        "--prove", help="Try a tiny model of this configuration; takes some 15 s, the answer is kept."
    ),
]

ONE_MODEL = (
    "model",
    "device",
    "concurrency",
    "budget",
    "prove",
)  # parameters that `check` of one model takes


def check(
    ctx: typer.Context,
    model: Model = None,
    device: Device = None,
    context: Annotated[
        int | None,
        typer.Option(help="Tokens of prompt and answer together. (default: 2048)", show_default=False),
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Requests at once.")] = 1,
    budget: Budget = None,
    engine: Engine = None,
    prove: Prove = False,
    all_models: Annotated[
        bool, typer.Option("--all", help="Every built-in model on every board, as a matrix.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="With --all: as Markdown.")] = False,
    list_models: Annotated[bool, typer.Option("--list", help="List the built-in models.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether a model fits, from its configuration alone. Exit code 0: it fits; 1: it does not."""
    if list_models:
        refuse_with(ctx, "--list", *ONE_MODEL, "context", "engine", "all_models", "markdown")
        _print_models(as_json)
        return
    if not all_models:
        refuse_without(ctx, "--all", "markdown")
    else:
        refuse_with(ctx, "--all", *ONE_MODEL)
        if as_json:
            refuse_with(ctx, "--json", "markdown")
        _print_matrix(context, engine, markdown=markdown, as_json=as_json)
        return
    from edgewright_builder.fit.check import check as answer_to
    from edgewright_builder.fit.check import make_question
    from edgewright_builder.fit.display.document import check_document
    from edgewright_builder.fit.display.terminal import print_check
    from edgewright_builder.fit.model_facts import find_model

    question = make_question(
        find_model(_required(model, "MODEL")),
        load_profile(_required(device, "--device")),
        budget_bytes=None if budget is None else parse_bytes(budget),
        context_tokens=context,
        concurrency=concurrency,
        engine=engine,
    )
    answer = answer_to(question)
    if prove and answer.why_not_served is None:
        answer = replace(answer, proof=_proved(answer))
    if as_json:
        typer.echo(json.dumps(check_document(answer), indent=2))
    else:
        print_check(Console(highlight=False), answer)
    raise typer.Exit(answer.verdict.exit_code)


def _proved(answer: Check) -> Proof:
    from edgewright_builder.fit.engines import engine_traits
    from edgewright_builder.prove.prove import require_proof

    if engine_traits(answer.plan.engine).loads != "onnx graph":
        raise InputError(
            f"--prove tries what is exported; {answer.plan.engine} computes from the checkpoint itself."
        )
    return require_proof(answer.question.model.config)


def _print_models(as_json: bool) -> None:
    from edgewright_builder.fit.catalogue import builtin_models

    models = builtin_models()
    if as_json:
        rows = [{"name": each.name, "hub_id": each.hub_id, "parameters": each.parameters} for each in models]
        typer.echo(json.dumps(rows, indent=2))
        return
    for each in models:
        typer.echo(f"{each.name:28}{each.parameters / 1e9:7.2f} B  {each.hub_id}")


def _print_matrix(context: int | None, engine: str | None, *, markdown: bool, as_json: bool) -> None:
    from edgewright_builder.fit.catalogue import builtin_models
    from edgewright_builder.fit.check import DEFAULT_CONTEXT_TOKENS
    from edgewright_builder.fit.display.document import matrix_document
    from edgewright_builder.fit.display.matrix import matrix_markdown, print_matrix
    from edgewright_builder.fit.matrix import make_matrix
    from edgewright_builder.fit.model_facts import from_builtin

    rows = make_matrix(
        [from_builtin(model) for model in builtin_models()],
        [load_profile(profile) for profile in list_profiles() if profile != "this-host"],
        context_tokens=DEFAULT_CONTEXT_TOKENS if context is None else context,
        engine=engine,
    )
    if as_json:
        typer.echo(json.dumps(matrix_document(rows), indent=2))
    elif markdown:
        typer.echo(matrix_markdown(rows))
    else:
        print_matrix(Console(highlight=False), rows)


def _required(value: str | None, name: str) -> str:
    if value is None:
        raise InputError(f"{name} is missing: name a model and a device, or give --all or --list.")
    return value

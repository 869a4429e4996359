"""Commands that answer before anything is downloaded or built: check, plan, calibrate."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from edgewright.errors import InputError
from edgewright.sizes import format_bytes, parse_bytes
from edgewright_builder.cli.given import refuse_with, refuse_without
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_profiles import list_profiles, load_profile

if TYPE_CHECKING:  # each command imports what it uses, as `check` is to answer at once
    from edgewright_builder.device.measure import BoardPoint
    from edgewright_builder.fit.calibrate import BoardCalibration
    from edgewright_builder.fit.memory import Calibration
    from edgewright_builder.fit.speed import MeasuredDecode

Model = Annotated[
    str | None,
    typer.Argument(help="A built-in name, hub id, folder, config.json or GGUF file.", show_default=False),
]
Device = Annotated[
    str | None, typer.Option(help="Device profile: an id, or a YAML file.", show_default=False)
]
Budget = Annotated[
    str | None,
    typer.Option(help="Memory it may take, e.g. 3.5GiB. (default: the profile's)", show_default=False),
]
Engine = Annotated[str | None, typer.Option(help="(default: onnxruntime-genai)", show_default=False)]
AsServed = Annotated[
    bool,
    typer.Option("--as-served", help="Take the peak as it is: the board has served its longest requests."),
]

ONE_MODEL = ("model", "device", "concurrency", "budget")  # what `check` of one model is told


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(check)
    app.command()(plan)
    app.command()(calibrate)


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
    all_models: Annotated[
        bool, typer.Option("--all", help="Every built-in model on every board, as a matrix.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="With --all: as Markdown.")] = False,
    list_models: Annotated[bool, typer.Option("--list", help="List the built-in models.")] = False,
    as_json: AsJson = False,
) -> None:
    """Will it fit? From a model's configuration alone, before any download. Exit code 0 fits, 1 does not."""
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
    from edgewright_builder.fit.display import print_check
    from edgewright_builder.fit.document import check_document
    from edgewright_builder.fit.model_facts import find_model

    question = make_question(
        find_model(_required(model, "MODEL")),
        load_profile(_required(device, "--device")),
        budget_bytes=_budget_bytes(budget),
        context_tokens=context,
        concurrency=concurrency,
        engine=engine,
    )
    answer = answer_to(question)
    if as_json:
        typer.echo(json.dumps(check_document(answer), indent=2))
    else:
        print_check(Console(highlight=False), answer)
    raise typer.Exit(answer.verdict.exit_code)


def plan(
    model: Annotated[str, typer.Argument(help="As of `check`.", show_default=False)],
    device: Annotated[str, typer.Option(help="Device profile: an id, or a YAML file.", show_default=False)],
    budget: Budget = None,
    min_context: Annotated[int, typer.Option(help="Tokens it must have room for.")] = 2048,
    concurrency: Annotated[int, typer.Option(help="Requests at once, at least.")] = 1,
    engine: Engine = None,
    as_json: AsJson = False,
) -> None:
    """The best configuration that fits: depth, bits, group size, context, concurrency; and what it was chosen from."""
    from edgewright_builder.fit.calibrate import calibration_for
    from edgewright_builder.fit.display import print_search
    from edgewright_builder.fit.document import search_document
    from edgewright_builder.fit.engines import ENGINES, engine_traits
    from edgewright_builder.fit.model_facts import find_model
    from edgewright_builder.fit.plan import Wishes, search_plans

    facts, profile = find_model(model), load_profile(device)
    kinds = [engine_traits(engine).kind] if engine else list(ENGINES)
    wishes = Wishes(min_context, concurrency, at_least=True)
    budget_bytes = _budget_bytes(budget)
    search = search_plans(
        facts.architecture,
        wishes,
        profile.budget_bytes() if budget_bytes is None else budget_bytes,
        [calibration_for(kind, profile.id) for kind in kinds],
    )
    if as_json:
        typer.echo(json.dumps(search_document(search, facts.name, profile.id), indent=2))
    else:
        print_search(Console(highlight=False), search)


def calibrate(
    host: Host,
    credentials: Credentials = None,
    insecure: Insecure = False,
    as_served: AsServed = False,
    as_json: AsJson = False,
) -> None:
    """Learn an engine's memory, speed and energy on a board, on which later predictions then rest."""
    from edgewright_builder.cli.connection import connect, run
    from edgewright_builder.device.measure import measured_point
    from edgewright_builder.fit.calibrate import check_point, refit, save_board
    from edgewright_builder.fit.memory import load_calibration

    async def work() -> BoardPoint:
        async with connect(host, credentials, insecure) as client:
            return await measured_point(client, fill=not as_served)

    found = run(work())
    shipped = load_calibration(found.engine)
    predicted_bytes = check_point(shipped, found.point).peak_bytes
    measured = _with_earlier_points(found)
    moved = refit(shipped, measured)
    file = save_board(measured)
    if as_json:
        typer.echo(json.dumps(_calibration_document(found, predicted_bytes, moved, file), indent=2))
    else:
        _print_calibration(found, predicted_bytes, moved, file)


def _with_earlier_points(found: BoardPoint) -> BoardCalibration:
    """What was measured on that board before, with this point; another version of the engine starts anew."""
    from edgewright_builder.fit.calibrate import BoardCalibration, load_board

    before = load_board(found.engine, found.board)
    if before is None or before.engine_version != found.engine_version:
        before = BoardCalibration(found.board, found.engine, found.engine_version, ())
    return before.with_point(found.point)


def _calibration_document(
    found: BoardPoint, predicted_bytes: int, moved: Calibration, file: Path
) -> dict[str, Any]:
    return {
        "board": found.board,
        "engine": found.engine,
        "points": moved.points,
        "file": str(file),
        "predicted_peak_bytes": predicted_bytes,
        "error_fraction": moved.error_fraction,
        "measured_peak_bytes": found.point.measured_peak_bytes,
        "decode": None if found.point.decode is None else asdict(found.point.decode),
    }


def _print_calibration(found: BoardPoint, predicted_bytes: int, moved: Calibration, file: Path) -> None:
    peak_bytes = found.point.measured_peak_bytes
    typer.echo(
        f"{found.board}, {found.engine} {found.engine_version}: measured {format_bytes(peak_bytes)} "
        f"({found.point.measure}), predicted {format_bytes(predicted_bytes)} "
        f"({peak_bytes / predicted_bytes - 1:+.1%})."
    )
    if found.point.decode is not None:
        typer.echo(_decoded(found.point.decode))
    typer.echo(
        f"Predictions for this board now rest on {moved.points} measurement{'s' * (moved.points > 1)} there, "
        f"± {moved.error_fraction:.1%} ({file})."
    )


def _decoded(decode: MeasuredDecode) -> str:
    energy = (
        "its energy is not measured"
        if decode.joules_per_token is None
        else f"{decode.joules_per_token:.3g} J a token"
    )
    mode = f" at {decode.power_mode}" if decode.power_mode else ""
    return f"One request alone{mode}: {1 / decode.tpot_seconds:.1f} tokens/s, {energy}."


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
    from edgewright_builder.fit.document import matrix_document
    from edgewright_builder.fit.matrix import make_matrix
    from edgewright_builder.fit.matrix_display import matrix_markdown, print_matrix
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


def _budget_bytes(text: str | None) -> int | None:
    return None if text is None else parse_bytes(text)

"""The push command: one artifact to one board, or to many in waves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgewright.errors import InputError
from edgewright_builder.cli.board import rollout
from edgewright_builder.cli.board.rollout import EachBoardOptions
from edgewright_builder.cli.boards import open_board
from edgewright_builder.cli.given import given, refuse_with, refuse_without
from edgewright_builder.cli.options import AsJson, Credentials, Insecure, Save
from edgewright_builder.cli.output import console, emit, stoppable
from edgewright_builder.cli.progress_view import ProgressView
from edgewright_builder.fleet.wave_rules import DEFAULT_WAVES
from edgewright_builder.python_api.artifacts import open_artifact
from edgewright_builder.python_api.async_board import NotCommittedError
from edgewright_builder.python_api.fleet import Fleet
from edgewright_builder.show.sheet import print_result

ArtifactFolder = Annotated[
    Path, typer.Argument(help="The artifact's folder, RUN/artifact.", show_default=False)
]
Hosts = Annotated[
    list[str] | None,
    typer.Argument(metavar="HOST:PORT...", help="Where the agents listen.", show_default=False),
]
FleetFile = Annotated[
    Path | None, typer.Option(help="The boards of this fleet.yaml instead.", show_default=False)
]
Activate = Annotated[bool, typer.Option("--activate/--no-activate", help="Put it to work, or stage it only.")]
Force = Annotated[bool, typer.Option("--force", help="Try a release again that failed here before.")]
Delta = Annotated[
    bool, typer.Option("--delta/--no-delta", help="Send what changed since a release the board has, if less.")
]
Probation = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=86_400.0,
        help="Seconds in which this machine must reach the board to confirm, else it rolls back. 0: the board decides.",
    ),
]
DeltaFrom = Annotated[
    list[Path] | None,
    typer.Option(
        help="An earlier artifact that boards may have, besides those pushed before from this machine.",
        show_default=False,
    ),
]


@stoppable("Stopped. Push again to go on from here.")
def push(
    ctx: typer.Context,
    artifact: ArtifactFolder,
    hosts: Hosts = None,
    fleet: FleetFile = None,
    select: rollout.Select = None,
    wave: rollout.Wave = DEFAULT_WAVES,
    abort_over: rollout.AbortOver = "5%",
    proceed_at: rollout.ProceedAt = "90%",
    parallel: rollout.Parallel = 8,
    timeout: rollout.Timeout = 1800.0,
    journal: rollout.JournalFile = None,
    retry_failed: rollout.RetryFailed = False,
    credentials: Credentials = None,
    insecure: Insecure = False,
    activate: Activate = True,
    force: Force = False,
    probation: Probation = 0.0,
    delta: Delta = True,
    delta_from: DeltaFrom = None,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Send an artifact to a board, or to a fleet in waves, and wait for the verdicts. Run it again to go on."""
    boards = list(hosts or [])
    _check_options(ctx, boards, fleet, activate=activate, delta=delta)
    earlier = [open_artifact(folder).folder for folder in delta_from or ()]
    options: EachBoardOptions = {
        "activate": activate, "force": force, "probation_seconds": probation, "delta": delta, "delta_from": earlier,
    }  # fmt: skip
    if fleet is None and len(boards) == 1:
        _push_one(artifact, boards[0], credentials, insecure, options, as_json=as_json, save=save)
        return
    own = credentials if fleet is None or given(ctx, "credentials") else None
    rollout.push_fleet(
        Fleet(fleet or boards, credentials=own, insecure=insecure).select(*(select or [])),
        artifact,
        rollout.Waves(wave, abort_over, proceed_at, parallel, timeout),
        rollout.JournalOptions(journal, retry_failed),
        options,
        as_json=as_json,
        save=save,
    )


def _check_options(
    ctx: typer.Context, boards: list[str], fleet: Path | None, *, activate: bool, delta: bool
) -> None:
    """Raises InputError for options that exclude each other."""
    if bool(boards) == (fleet is not None):
        raise InputError("Name the boards to push to, either as HOST:PORT or with --fleet FLEET.yaml.")
    if not delta:
        refuse_with(ctx, "--no-delta", "delta_from")
    if not activate:
        refuse_with(ctx, "--no-activate", "force", "probation")
    if len(boards) == 1:
        refuse_without(ctx, "--fleet or several HOST:PORT", *rollout.OPTIONS)


def _push_one(
    artifact: Path,
    host: str,
    credentials: Path | None,
    insecure: bool,
    options: EachBoardOptions,
    *,
    as_json: bool,
    save: Path | None,
) -> None:
    out = console(as_json=as_json)
    opened = open_artifact(artifact)
    out.print(f"{opened.manifest.name} {opened.manifest.version} ({opened.digest[:12]})", markup=False)
    with open_board(host, credentials, insecure) as board, ProgressView(out).shown() as view:
        try:
            result = board.push(artifact, on_progress=view, **options)
        except NotCommittedError as error:
            emit("push", error.result, as_json=as_json, save=save)
            print_result(out, error.result)
            raise
    emit("push", result, as_json=as_json, save=save)
    print_result(out, result)

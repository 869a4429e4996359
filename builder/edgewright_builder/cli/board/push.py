"""The push command: one artifact to one board, or to many in waves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from edgewright.errors import InputError
from edgewright_builder.artifact.artifact import open_artifact
from edgewright_builder.cli.board import rollout
from edgewright_builder.cli.connection import as_document, connect, console, emit, require_commit, run
from edgewright_builder.cli.given import given, refuse_with, refuse_without
from edgewright_builder.cli.options import AsJson, Credentials, Insecure, Save
from edgewright_builder.fleet.waves import DEFAULT_WAVES
from edgewright_builder.keys import trust_issuer
from edgewright_builder.push.deltas import DeltaSources
from edgewright_builder.push.push import PushResult
from edgewright_builder.push.push import push as push_artifact
from edgewright_builder.push.transfer import TransferListener
from edgewright_builder.show import describe, display

Delta = Annotated[
    bool, typer.Option("--delta/--no-delta", help="Send what changed since a release the board has, if less.")
]
Probation = Annotated[
    float,
    typer.Option(
        min=0.0,
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


def push(
    ctx: typer.Context,
    artifact: Annotated[
        Path, typer.Argument(help="The artifact's folder, RUN/artifact.", show_default=False)
    ],
    hosts: Annotated[
        list[str] | None,
        typer.Argument(metavar="HOST:PORT...", help="Where the agents listen.", show_default=False),
    ] = None,
    fleet: Annotated[
        Path | None, typer.Option(help="The boards of this fleet.yaml instead.", show_default=False)
    ] = None,
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
    activate: Annotated[
        bool, typer.Option("--activate/--no-activate", help="Put it to work, or stage it only.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Try a release again that failed here before.")
    ] = False,
    probation: Probation = 0.0,
    delta: Delta = True,
    delta_from: DeltaFrom = None,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Send an artifact to a board, or to a fleet in waves, and wait for the verdicts. Run it again to go on."""
    found = list(hosts or [])
    if bool(found) == (fleet is not None):
        raise InputError("Name the boards to push to, either as HOST:PORT or with --fleet FLEET.yaml.")
    if not delta:
        refuse_with(ctx, "--no-delta", "delta_from")
    if not activate:
        refuse_with(ctx, "--no-activate", "force", "probation")
    if fleet is None and len(found) == 1:
        refuse_without(ctx, "--fleet or several HOST:PORT", *rollout.OPTIONS)
        sources = delta_sources(delta, delta_from)
        _push_one(
            artifact, found[0], credentials, insecure, activate, force, probation, sources, as_json, save
        )
        return
    rollout.push_fleet(
        artifact,
        rollout.Boards(found, fleet, select or [], credentials, given(ctx, "credentials"), insecure),
        rollout.Waves(wave, abort_over, proceed_at, parallel, timeout),
        rollout.JournalOptions(journal, retry_failed),
        activate=activate,
        force=force,
        confirm_within_seconds=probation,
        delta_sources=delta_sources(delta, delta_from),
        as_json=as_json,
        save=save,
    )


def _push_one(
    artifact: Path,
    host: str,
    credentials: Path | None,
    insecure: bool,
    activate: bool,
    force: bool,
    confirm_within_seconds: float,
    sources: DeltaSources | None,
    as_json: bool,
    save: Path | None,
) -> None:
    out = console(as_json=as_json)
    opened = open_artifact(artifact)
    out.print(f"{opened.manifest.name} {opened.manifest.version} ({opened.digest[:12]})", markup=False)
    bar = display.TransferBar(out)
    listener = TransferListener(
        planned=lambda plan: out.print(describe.plan_line(plan), markup=False, soft_wrap=True),
        sent=bar.update,
        note=lambda text: out.print(f"  {text}", markup=False, soft_wrap=True),
    )

    async def work() -> PushResult:
        async with connect(host, credentials, insecure) as client:
            with bar.shown():
                return await push_artifact(
                    client,
                    artifact,
                    trust_issuer.release_key(credentials),
                    activate=activate,
                    force=force,
                    confirm_within_seconds=confirm_within_seconds,
                    listener=listener,
                    delta_sources=sources,
                )

    result = run(work(), when_stopped="Stopped. Push again to go on from here.")
    emit(_push_document(result), as_json=as_json, save=save)
    _print_push(out, result)
    if result.verdict is not None:
        require_commit(host, result.verdict)


def _push_document(result: PushResult) -> dict[str, Any]:
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return fields | {
        "plan": dataclasses.asdict(result.plan),
        "memory": as_document(result.memory),
        "verdict": dataclasses.asdict(result.verdict) if result.verdict is not None else None,
    }


def _print_push(out: Console, result: PushResult) -> None:
    for line in describe.push_lines(result):
        out.print(line)
    if result.verdict is None:
        out.print("staged; not activated")
        return
    if result.verdict.probes:
        display.table(
            out, describe.PROBE_COLUMNS, [describe.probe_row(probe) for probe in result.verdict.probes]
        )
    out.print(f"{result.verdict.outcome.replace('_', ' ')}: {result.verdict.message}", markup=False)


def delta_sources(delta: bool, folders: list[Path] | None) -> DeltaSources | None:
    """Where earlier artifacts may be; None if none is wanted. Raises InputError for a folder that is none."""
    for folder in folders or ():
        open_artifact(folder)
    return DeltaSources(tuple(folders or ())) if delta else None

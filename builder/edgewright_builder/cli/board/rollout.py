"""Pushing to many boards: the options of a rollout, and the command behind them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from edgewright.errors import RefusedError
from edgewright_builder.cli.output import console, emit
from edgewright_builder.fleet.rollout import RolloutReport
from edgewright_builder.fleet.view import RolloutView
from edgewright_builder.fleet.wave_rules import SUCCESSES
from edgewright_builder.push.delta_selection import DeltaSources
from edgewright_builder.python_api.fleet import Fleet, RolloutOrder
from edgewright_builder.show.sheet import print_result

PANEL = "Many boards"
Select = Annotated[
    list[str] | None,
    typer.Option(
        help="Only boards with label=value or label!=value. May be repeated.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Wave = Annotated[
    str, typer.Option(help="Devices reached after each wave, as numbers or shares.", rich_help_panel=PANEL)
]
AbortOver = Annotated[
    str,
    typer.Option(help="Begin no other device when more than this share has failed.", rich_help_panel=PANEL),
]
ProceedAt = Annotated[
    str, typer.Option(help="Share of a wave that must commit before the next begins.", rich_help_panel=PANEL)
]
Parallel = Annotated[int, typer.Option(min=1, max=256, help="Devices at once.", rich_help_panel=PANEL)]
Timeout = Annotated[
    float,
    typer.Option(
        min=1.0, max=604_800.0, help="Seconds until a device counts as failed.", rich_help_panel=PANEL
    ),
]
JournalFile = Annotated[
    Path | None,
    typer.Option(
        help="What has been done; the same file goes on with it. (default: beside the fleet file)",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        help="Try devices again that failed; a board that denies the release also needs --force.",
        rich_help_panel=PANEL,
    ),
]

OPTIONS = ("select", "wave", "abort_over", "proceed_at", "parallel", "timeout", "journal", "retry_failed")


class EachBoardOptions(TypedDict):
    """What holds for every board."""

    activate: bool
    force: bool
    probation_seconds: float
    delta: bool
    delta_from: list[Path]


@dataclass(frozen=True)
class Waves:
    """How to go about it, as typed."""

    waves: str
    abort_over: str
    proceed_at: str
    parallel: int
    timeout_seconds: float


@dataclass(frozen=True)
class JournalOptions:
    """Where the journal is, and whether its failures are final."""

    path: Path | None
    retry_failed: bool


def push_fleet(
    fleet: Fleet,
    artifact: Path,
    waves: Waves,
    journal: JournalOptions,
    options: EachBoardOptions,
    *,
    as_json: bool,
    save: Path | None,
) -> None:
    """Rolls an artifact out; raises RefusedError if not every device serves (or only holds) it in the end."""
    out = console(as_json=as_json)
    order = fleet.order(
        artifact,
        waves=waves.waves,
        abort_over=waves.abort_over,
        proceed_at=waves.proceed_at,
        parallel=waves.parallel,
        timeout_seconds=waves.timeout_seconds,
        journal=journal.path,
        retry_failed=journal.retry_failed,
        activate=options["activate"],
        force=options["force"],
        probation_seconds=options["probation_seconds"],
        delta_sources=DeltaSources(tuple(options["delta_from"])) if options["delta"] else None,
    )
    view = RolloutView(out, len(fleet), len(order.settings.wave_ends))
    with view.shown() as listener:
        out.print(_headline(fleet, order), markup=False)
        report = fleet.roll_out(order, listener, lambda text: out.print(text, markup=False, soft_wrap=True))
    emit("rollout", report, as_json=as_json, save=save)
    print_result(out, report)
    _require_complete(report, len(fleet), activate=options["activate"])


def _headline(fleet: Fleet, order: RolloutOrder) -> str:
    artifact, inventory = order.artifact, fleet.inventory
    boards = f"{len(fleet)} of {len(inventory.devices)} devices of {inventory.name}"
    return f"{artifact.manifest.name} {artifact.manifest.version} ({artifact.digest[:12]}) to {boards}"


def _require_complete(report: RolloutReport, devices: int, *, activate: bool) -> None:
    if report.complete:
        return
    done = sum(result.outcome in SUCCESSES for result in report.results.values())
    why = f"stopped: {report.stopped}" if report.stopped else "see the devices above"
    raise RefusedError(f"{done} of {devices} devices {'serve' if activate else 'hold'} the release; {why}.")

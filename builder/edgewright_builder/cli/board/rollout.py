"""Pushing to many boards: the options of a rollout, and the command behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgewright.errors import InputError, RefusedError
from edgewright_builder.artifact.artifact import Artifact, verify_artifact
from edgewright_builder.cli.connection import connect, console, emit, run
from edgewright_builder.fleet.inventory import FleetDevice, Inventory, inventory_of_hosts, load_inventory
from edgewright_builder.fleet.journal import RolloutJournal, held
from edgewright_builder.fleet.resumption import forget_outdated, holds, serves
from edgewright_builder.fleet.rollout import RolloutListener, RolloutReport, RolloutSettings, roll_out
from edgewright_builder.fleet.view import RolloutView, print_report, report_document
from edgewright_builder.fleet.waves import SUCCESSES, Thresholds, parse_share, wave_ends
from edgewright_builder.keys import trust_issuer
from edgewright_builder.push.deltas import Deltas, DeltaSources, deltas_from
from edgewright_builder.push.push import PushResult, push_verified

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
    float, typer.Option(min=1.0, help="Seconds until a device counts as failed.", rich_help_panel=PANEL)
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


@dataclass(frozen=True)
class Boards:
    """Which boards, and how to reach them."""

    hosts: list[str]
    fleet: Path | None
    selectors: list[str]
    credentials: Path | None
    credentials_typed: bool  # else they are the environment's
    insecure: bool


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
    folder: Path,
    boards: Boards,
    waves: Waves,
    journal_options: JournalOptions,
    *,
    activate: bool,
    force: bool,
    confirm_within_seconds: float,
    delta_sources: DeltaSources | None,
    as_json: bool,
    save: Path | None,
) -> None:
    """Rolls an artifact out; raises RefusedError if not every device serves (or only holds) it in the end."""
    out = console(as_json=as_json)
    inventory = load_inventory(boards.fleet) if boards.fleet else inventory_of_hosts(boards.hosts)
    devices = inventory.selected(boards.selectors)
    credentials = _credentials(inventory, boards)
    artifact = verify_artifact(folder, trust_issuer.release_key(credentials))
    settings = _settings(waves, len(devices))
    push = _Push(artifact, credentials, boards.insecure, activate, force, confirm_within_seconds)
    with (
        _journal(journal_options, boards.fleet, push, devices) as journal,
        deltas_from(artifact, delta_sources) as deltas,
    ):
        out.print(_headline(artifact, inventory, devices), markup=False)
        report = _roll_out(out, devices, push, deltas, journal, settings)
    emit(report_document(report), as_json=as_json, save=save)
    print_report(out, report)
    _require_complete(report, len(devices), activate=activate)


@dataclass(frozen=True)
class _Push:
    """What each board gets."""

    artifact: Artifact
    credentials: Path | None
    insecure: bool
    activate: bool
    force: bool
    confirm_within_seconds: float

    async def update(self, device: FleetDevice, deltas: Deltas | None) -> PushResult:
        """Sends it to a board and waits for the verdict."""
        async with connect(device.host, self.credentials, self.insecure) as client:
            return await push_verified(
                client,
                self.artifact,
                activate=self.activate,
                force=self.force,
                confirm_within_seconds=self.confirm_within_seconds,
                deltas=deltas,
            )

    async def is_done(self, device: FleetDevice) -> bool:
        """Whether the board has it already, and serves it where it is to be activated."""
        async with connect(device.host, self.credentials, self.insecure) as client:
            return await (serves if self.activate else holds)(client, bytes.fromhex(self.artifact.digest))


def _roll_out(
    out: Console,
    devices: Sequence[FleetDevice],
    push: _Push,
    deltas: Deltas | None,
    journal: RolloutJournal,
    settings: RolloutSettings,
) -> RolloutReport:
    async def work(listener: RolloutListener) -> RolloutReport:
        outdated = await forget_outdated(devices, journal, push.is_done, settings.parallel)
        if outdated:
            out.print(_outdated_line(outdated), markup=False, soft_wrap=True)
        return await roll_out(
            devices, lambda device: push.update(device, deltas), journal, settings, listener
        )

    with RolloutView(out, len(devices), len(settings.wave_ends)).shown() as listener:
        return run(work(listener), when_stopped="Stopped. The same command goes on from here.")


def _credentials(inventory: Inventory, boards: Boards) -> Path | None:
    """The command line's credentials come before the fleet file's, and those before the environment's."""
    named = (boards.credentials, inventory.credentials)
    first, second = named if boards.credentials_typed else reversed(named)
    credentials = first or second
    if credentials is None and not boards.insecure:
        raise InputError(
            f"The fleet {inventory.name} names no credentials: give --credentials DIR or EDGEWRIGHT_CREDENTIALS."
        )
    if credentials is not None and not credentials.is_dir():
        raise InputError(f"The credentials folder {credentials} does not exist; see `edgewright keys`.")
    return credentials


def _settings(waves: Waves, devices: int) -> RolloutSettings:
    thresholds = Thresholds(parse_share(waves.abort_over), parse_share(waves.proceed_at))
    return RolloutSettings(wave_ends(waves.waves, devices), thresholds, waves.parallel, waves.timeout_seconds)


@contextmanager
def _journal(
    options: JournalOptions, fleet: Path | None, push: _Push, devices: Sequence[FleetDevice]
) -> Iterator[RolloutJournal]:
    """The rollout's journal, its own while the context is open."""
    release, names = push.artifact.digest, [device.name for device in devices]
    path = options.path or _journal_path(fleet, release)
    with held(path):
        yield RolloutJournal.open(
            path, release, names, retry_failed=options.retry_failed, activate=push.activate
        )


def _journal_path(fleet: Path | None, release: str) -> Path:
    stem = fleet.with_suffix("") if fleet is not None else Path("push")
    return stem.with_name(f"{stem.name}-{release[:12]}.journal.jsonl")


def _headline(artifact: Artifact, inventory: Inventory, devices: tuple[FleetDevice, ...]) -> str:
    manifest = artifact.manifest
    boards = f"{len(devices)} of {len(inventory.devices)} devices of {inventory.name}"
    return f"{manifest.name} {manifest.version} ({artifact.digest[:12]}) to {boards}"


def _outdated_line(devices: list[str]) -> str:
    more = f" and {len(devices) - 3} more" if len(devices) > 3 else ""
    return (
        f"{', '.join(devices[:3])}{more}: the journal calls {'it' if len(devices) == 1 else 'them'} done, "
        "which no board confirms; begun again"
    )


def _require_complete(report: RolloutReport, devices: int, *, activate: bool) -> None:
    if report.complete:
        return
    done = sum(result.outcome in SUCCESSES for result in report.results.values())
    why = f"stopped: {report.stopped}" if report.stopped else "see the devices above"
    raise RefusedError(f"{done} of {devices} devices {'serve' if activate else 'hold'} the release; {why}.")

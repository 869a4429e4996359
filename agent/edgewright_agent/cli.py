"""`edgewright-agent`: the board's command line."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import shutil
import signal
import sys
from collections.abc import Hashable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edgewright import __version__
from edgewright.address import parse_address
from edgewright.command_line import finite, run
from edgewright.errors import EdgewrightError, InputError, OutsideError
from edgewright.sizes import format_bytes, parse_bytes, parse_bytes_or_zero
from edgewright.trust.keys import load_trust
from edgewright_agent.doctor import command as cli_doctor
from edgewright_agent.openai_api.settings import OpenAISettings, parse_openai
from edgewright_agent.runtime import systemd
from edgewright_agent.runtime.allocator import trim, tune_allocator
from edgewright_agent.runtime.file_handles import raise_handle_limit
from edgewright_agent.runtime.idle_memory import giving_back
from edgewright_agent.runtime.startup_pages import release_startup_pages
from edgewright_agent.runtime.tls import TlsFiles, validity_problem
from edgewright_agent.server import AgentSettings, RunningAgent, run_agent
from edgewright_agent.store import Space
from edgewright_agent.store.background_scrub import BackgroundScrubSettings
from edgewright_agent.telemetry_feeds import ObservationSettings
from edgewright_profiles import DeviceProfile, load_profile

app = typer.Typer(
    name="edgewright-agent",
    help="Receives releases over gRPC, serves them, and measures what that costs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
cli_doctor.register(app)


Profile = Annotated[str, typer.Option(help="Device profile: an id, or a YAML file.")]
Store = Annotated[Path, typer.Option(help="Folder that holds blobs, releases and state.")]
Listen = Annotated[str, typer.Option(help="HOST:PORT; port 0 takes a free one.")]
Budget = Annotated[
    str | None, typer.Option(help="Memory a release may take, e.g. 180MiB. (default: the profile's)")
]
TlsCert = Annotated[Path | None, typer.Option(help="This board's certificate, PEM.")]
TlsKey = Annotated[Path | None, typer.Option(help="Its key, PEM.")]
TlsCa = Annotated[Path | None, typer.Option(help="Authority of the clients' certificates, PEM.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="No TLS; loopback addresses only.")]
Trust = Annotated[
    list[Path] | None,
    typer.Option(help="Whose releases may run: public keys (repeat), a folder of them, or a trust document."),
]
StoreQuota = Annotated[
    str | None, typer.Option(help="Most the store may take, e.g. 8GiB. (default: the disk)")
]
StoreReserve = Annotated[str, typer.Option(help="Disk space that is left to others; 0B: none.")]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="Engine threads. (default: one per core)")]
Probation = Annotated[
    float, typer.Option(min=0, max=86_400, callback=finite, help="Seconds a new release is on trial.")
]
ReadyTimeout = Annotated[
    float, typer.Option(min=1, max=86_400, callback=finite, help="Seconds an engine may take to load.")
]
Metrics = Annotated[
    str | None, typer.Option(help="Prometheus metrics at HOST:PORT, e.g. 127.0.0.1:9464. (default: none)")
]
Otlp = Annotated[
    str | None,
    typer.Option(help="Send metrics to this OTLP/HTTP collector, e.g. http://host:4318. (default: none)"),
]
History = Annotated[
    str, typer.Option(help="Disk space for telemetry recorded while nobody listens; 0B: none is.")
]
ScrubDays = Annotated[
    float,
    typer.Option(
        min=0, max=3650, callback=finite, help="Days between two slow readings of the whole store; 0: none."
    ),
]
Openai = Annotated[
    str | None,
    typer.Option(
        help="Serve the OpenAI-compatible API at HOST:PORT or unix:PATH, e.g. 127.0.0.1:8080. (default: none)"
    ),
]
OpenaiKey = Annotated[
    Path | None,
    typer.Option(help="File with the API key that its clients send; needed, with TLS, for other machines."),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log every step to standard error.")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"edgewright-agent {__version__}")
        raise typer.Exit


@app.command()
def serve(
    profile: Profile,
    store: Store,
    listen: Listen = "127.0.0.1:7443",
    budget: Budget = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
    insecure: Insecure = False,
    trust: Trust = None,
    store_quota: StoreQuota = None,
    store_reserve: StoreReserve = "512MiB",
    threads: Threads = None,
    probation: Probation = 5.0,
    ready_timeout: ReadyTimeout = 300.0,
    metrics: Metrics = None,
    otlp: Otlp = None,
    history: History = "16MiB",
    scrub_days: ScrubDays = 7.0,
    openai: Openai = None,
    openai_key: OpenaiKey = None,
    verbose: Verbose = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    _log(verbose=verbose)
    tls = _tls(tls_cert, tls_key, tls_ca, insecure=insecure)
    device = load_profile(profile)
    settings = AgentSettings(
        profile=device,
        store=store,
        listen=parse_address(listen),
        tls=tls,
        trust=load_trust(trust or []),
        budget_bytes=None if budget is None else _budget_bytes(budget, device),
        space=_space(store_quota, store_reserve, store),
        threads=threads,
        ready_timeout_seconds=ready_timeout,
        probation_seconds=probation,
        observation=ObservationSettings(
            history_bytes=parse_bytes_or_zero(history),
            metrics=parse_address(metrics) if metrics else None,
            otlp=otlp,
        ),
        scrub=BackgroundScrubSettings(interval_seconds=scrub_days * 24 * 3600),
        openai=_openai_settings(openai, openai_key, tls),
    )
    raise_handle_limit()
    tune_allocator()
    asyncio.run(_serve(settings))


@app.command()
def probe(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")] = False,
) -> None:
    """Say what this board is, has, and can run."""
    # The agent itself has no use for tables: only who asks for one pays for them.
    from rich.console import Console

    from edgewright_agent.doctor.probe import probe as probe_board
    from edgewright_agent.doctor.probe import render

    found = probe_board()
    if as_json:
        typer.echo(json.dumps({"schema": "edgewright.probe.v1", **found.to_json()}, indent=2))
    else:
        Console().print(render(found))


def main() -> None:
    """Runs the command line. An error is one sentence and an exit code, never a traceback."""
    try:
        run(app)
    except EdgewrightError as error:
        _end(error)
    except OSError as error:  # such as a pipe or a file that takes no more output
        what = error.filename or "The output"
        _end(OutsideError(f"{what} could not be read or written: {error.strerror or error}. Check the disk."))


def _end(error: EdgewrightError) -> NoReturn:
    typer.echo(f"edgewright-agent: {error}", err=True)
    sys.exit(error.exit_code)


def _log(*, verbose: bool) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # else a line per request to a mirror


async def _serve(settings: AgentSettings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with run_agent(settings) as agent:
        now = datetime.now(timezone.utc)
        problem = None if settings.tls is None else validity_problem(settings.tls, now)
        if problem is not None:
            typer.echo(f"warning: {problem}", err=True)
        if settings.trust is None:
            typer.echo("warning: without --trust every release is refused; give release.pub", err=True)
        if agent.observation.metrics is not None:
            typer.echo(f"metrics on http://{agent.observation.metrics}/metrics", err=True)
        if agent.openai is not None:
            typer.echo(f"OpenAI-compatible API on {agent.openai}", err=True)
        typer.echo(f"serving on {agent.address}")
        sys.stdout.flush()
        systemd.notify("READY=1")
        gc.freeze()  # what the start made stays: collections while tokens come need not look at it again
        give_back = partial(_give_back, release_startup_pages())
        async with systemd.watched(), giving_back(partial(_activity, agent), give_back):
            await stopping.wait()
        systemd.notify("STOPPING=1")


def _activity(agent: RunningAgent) -> tuple[Hashable, ...]:
    """Returns what changes with each upload, request and deployment."""
    uploaded_bytes = sum(agent.store.traffic.bytes_by_way.values())
    return uploaded_bytes, agent.telemetry.serving(), agent.deployer.state.phase


def _give_back(startup_pages: frozenset[tuple[int, int]]) -> None:
    """Gives back what a push or requests needed: freed memory, and pages of files that are read again when needed."""
    gc.collect()
    trim()
    release_startup_pages(startup_pages)


def _openai_settings(openai: str | None, key: Path | None, tls: TlsFiles | None) -> OpenAISettings | None:
    if openai:
        return parse_openai(openai, key, tls)
    if key is not None:
        raise InputError(
            "--openai-key has no effect without --openai; give that too, or leave --openai-key out."
        )
    return None


def _budget_bytes(budget: str, device: DeviceProfile) -> int:
    budget_bytes = parse_bytes(budget)
    device.require_within_memory(budget_bytes)
    return budget_bytes


def _space(quota: str | None, reserve: str, store: Path) -> Space:
    """Raises InputError for a reserve that would leave the store no byte of its disk."""
    reserve_bytes = parse_bytes_or_zero(reserve)
    disk_bytes = shutil.disk_usage(
        next(path for path in (store, *store.absolute().parents) if path.exists())
    ).total
    if reserve_bytes >= disk_bytes:
        raise InputError(
            f"--store-reserve is {reserve}, and the disk of {store} has {format_bytes(disk_bytes)}: nothing could be "
            "stored. Give less than that."
        )
    return Space(None if quota is None else parse_bytes(quota), reserve_bytes)


def _tls(cert: Path | None, key: Path | None, authority: Path | None, *, insecure: bool) -> TlsFiles | None:
    if insecure and not (cert or key or authority):
        return None
    if insecure or cert is None or key is None or authority is None:
        raise InputError("Give --tls-cert, --tls-key and --tls-ca together, or --insecure alone.")
    return TlsFiles(cert, key, authority)

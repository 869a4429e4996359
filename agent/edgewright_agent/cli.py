"""`edgewright-agent`: the board's command line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgewright_agent import __version__
from edgewright_agent.address import parse_address
from edgewright_agent.errors import EdgewrightError, InputError
from edgewright_agent.probe import probe as probe_board
from edgewright_agent.probe import render
from edgewright_agent.server import AgentSettings, run_agent
from edgewright_agent.sizes import parse_bytes
from edgewright_agent.store import Space
from edgewright_agent.tls import TlsFiles
from edgewright_agent.trust import load_trusted_keys
from edgewright_profiles import load_profile

app = typer.Typer(
    name="edgewright-agent",
    help="Receives releases over gRPC, serves them, and measures what that costs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"edgewright-agent {__version__}")
        raise typer.Exit


@app.command()
def serve(
    profile: Annotated[str, typer.Option(help="Device profile: an id, or a YAML file.")],
    store: Annotated[Path, typer.Option(help="Folder that holds blobs, releases and state.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 takes a free one.")] = "127.0.0.1:7443",
    budget: Annotated[
        str | None, typer.Option(help="Memory a release may take, e.g. 180MiB. [default: the profile's]")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="This board's certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="Authority of the clients' certificates, PEM.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="No TLS; loopback addresses only.")] = False,
    trust: Annotated[
        list[Path] | None, typer.Option(help="Public key whose releases may run; repeat.")
    ] = None,
    store_quota: Annotated[
        str | None, typer.Option(help="Most the store may take, e.g. 8GiB. [default: the disk]")
    ] = None,
    store_reserve: Annotated[str, typer.Option(help="Disk space never touched.")] = "512MiB",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Engine threads. [default: one per core]")
    ] = None,
    probation: Annotated[float, typer.Option(min=0, help="Seconds a new release is on trial.")] = 5.0,
    ready_timeout: Annotated[float, typer.Option(min=1, help="Seconds an engine may take to load.")] = 300.0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every step to standard error.")] = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # else a line per request to the engine
    settings = AgentSettings(
        profile=load_profile(profile),
        store=store,
        listen=parse_address(listen),
        tls=_tls(tls_cert, tls_key, tls_ca, insecure=insecure),
        trusted_keys=load_trusted_keys(trust or []),
        budget_bytes=None if budget is None else parse_bytes(budget),
        space=Space(None if store_quota is None else parse_bytes(store_quota), parse_bytes(store_reserve)),
        threads=threads,
        ready_timeout_seconds=ready_timeout,
        probation_seconds=probation,
    )
    asyncio.run(_serve(settings))


@app.command()
def probe(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this board is, has, and can run."""
    found = probe_board()
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        Console().print(render(found))


def main() -> None:
    """The console script: errors are one sentence and an exit code, never a traceback."""
    try:
        app()
    except EdgewrightError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


async def _serve(settings: AgentSettings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with run_agent(settings) as agent:
        if not settings.trusted_keys:
            typer.echo("warning: without --trust every release is refused; give release.pub", err=True)
        typer.echo(f"serving on {agent.address}")
        sys.stdout.flush()
        _notify_systemd("READY=1")
        await stopping.wait()
        _notify_systemd("STOPPING=1")


def _tls(cert: Path | None, key: Path | None, authority: Path | None, *, insecure: bool) -> TlsFiles | None:
    if insecure and not (cert or key or authority):
        return None
    if insecure or cert is None or key is None or authority is None:
        raise InputError("Give --tls-cert, --tls-key and --tls-ca together, or --insecure alone.")
    return TlsFiles(cert, key, authority)


def _notify_systemd(state: str) -> None:
    """One datagram to systemd, see sd_notify(3); nothing where systemd did not start us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.sendto(state.encode(), address.replace("@", "\0", 1))

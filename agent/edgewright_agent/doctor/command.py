"""`edgewright-agent doctor`: what is wrong with this board, and what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright.address import parse_address
from edgewright.errors import InputError
from edgewright.sizes import parse_bytes
from edgewright_agent.runtime.tls import TlsFiles
from edgewright_profiles import DeviceProfile, load_profile

if TYPE_CHECKING:
    from edgewright_agent.doctor.finding import Finding

# Where the systemd unit has them.
CONFIGURATION, STORE = Path("/etc/edgewright"), Path("/var/lib/edgewright")


Profile = Annotated[
    str | None, typer.Option(help="Device profile: an id, or a YAML file. (default: as probed)")
]
Store = Annotated[Path, typer.Option(readable=False, help="Folder of the store, or where it is to be.")]
Budget = Annotated[
    str | None, typer.Option(help="Memory a release may take, as of `serve`. (default: the profile's)")
]
Listen = Annotated[str, typer.Option(help="HOST:PORT the agent is to listen on.")]
# What may not be read is a finding, not a wrong option.
TlsCert = Annotated[
    Path | None,
    typer.Option(readable=False, help="This board's certificate. (default: agent.pem in /etc/edgewright)"),
]
TlsKey = Annotated[Path | None, typer.Option(readable=False, help="Its key. (default: agent.key there)")]
TlsCa = Annotated[
    Path | None, typer.Option(readable=False, help="Clients' authority. (default: ca.pem there)")
]
Trust = Annotated[
    list[Path] | None,
    typer.Option(readable=False, help="As of `serve`; repeat. (default: release.pub there)"),
]
Engines = Annotated[bool, typer.Option("--engines/--no-engines", help="Try the engines.")]
Root = Annotated[Path, typer.Option(help="Read /proc, /sys and /etc below this folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(doctor)


def doctor(
    profile: Profile = None,
    store: Store = STORE,
    budget: Budget = None,
    listen: Listen = "0.0.0.0:7443",
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: TlsCa = None,
    trust: Trust = None,
    engines: Engines = True,
    root: Root = Path("/"),
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with this board and what to do. Exit code 1: something is.

    Give it the agent's options; without them it looks where the systemd unit does. Run it as the agent's user, or as
    root where files are root's.
    """
    from edgewright_agent.doctor.checks import examine
    from edgewright_agent.doctor.finding import Subject
    from edgewright_agent.doctor.report import healthy

    if not root.is_dir():
        raise InputError(f"There is no folder {root}; --root is the one that holds proc, sys and etc.")
    device, budget_bytes = _profile(profile, root), None if budget is None else parse_bytes(budget)
    if budget_bytes is not None:
        device.require_within_memory(budget_bytes)
    subject = Subject(
        root=root,
        profile=device,
        budget_bytes=budget_bytes,
        store=store,
        tls=_tls(tls_cert, tls_key, tls_ca),
        trust=tuple(trust or _present("release.pub")),
        listen=parse_address(listen),
        start_engines=engines,
    )
    findings = examine(subject)
    _print(findings, as_json=as_json)
    raise typer.Exit(0 if healthy(findings) else 1)


def _print(findings: Mapping[str, Finding], *, as_json: bool) -> None:
    # The agent itself has no use for tables: only who asks for one pays for them.
    from rich.console import Console
    from rich.text import Text

    from edgewright_agent.doctor.report import COLORS, lines, to_json

    if as_json:
        typer.echo(json.dumps({"schema": "edgewright.doctor.v1", **to_json(findings)}, indent=2))
        return
    console = Console(highlight=False)
    for result, line in lines(findings):
        console.print(Text(line, style=COLORS[result] if result else ""), soft_wrap=True)


def _profile(name: str | None, root: Path) -> DeviceProfile:
    from edgewright_agent.doctor.probe import probe

    return load_profile(name if name is not None else probe(root, engines=lambda: ()).profile_id)


def _tls(certificate: Path | None, key: Path | None, authority: Path | None) -> TlsFiles | None:
    files = [
        given or next(iter(_present(name)), None)
        for given, name in ((certificate, "agent.pem"), (key, "agent.key"), (authority, "ca.pem"))
    ]
    if files == [None] * 3:
        return None
    return TlsFiles(*(path or CONFIGURATION / "missing" for path in files))


def _present(name: str) -> list[Path]:
    from edgewright_agent.doctor.access import is_hidden

    path = CONFIGURATION / name
    return [path] if is_hidden(path) or path.exists() else []

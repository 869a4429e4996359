"""`edgewright keys`: the credentials folder, and whom boards trust."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

from edgewright.dsse import key_id
from edgewright.errors import RefusedError
from edgewright.trust.keys import load_public_key
from edgewright_builder.cli.given import refuse_without
from edgewright_builder.cli.options import AsJson, Insecure
from edgewright_builder.cli.output import console, emit, stoppable
from edgewright_builder.keys.credentials import Written
from edgewright_builder.keys.trust_issuer import parse_days
from edgewright_builder.python_api.credentials import Credentials
from edgewright_builder.show.sheet import print_result


class CertificateRole(str, Enum):
    """Whose a certificate is."""

    AGENT = "agent"
    DEPLOYER = "deployer"
    OBSERVER = "observer"


app = typer.Typer(
    help="Release and root keys, certificates, and whom boards trust.",
    no_args_is_help=True,
    add_completion=False,
)

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of `edgewright keys create`.", show_default=False)
]
ToldBoards = Annotated[
    list[str] | None,
    typer.Argument(metavar="HOST:PORT...", help="Boards to tell the newest document.", show_default=False),
]
AddedKeys = Annotated[
    list[Path] | None,
    typer.Option(help="Trust this release key (*.pub) too; repeat.", show_default=False),
]
Threshold = Annotated[
    int | None, typer.Option(min=1, help="How many release keys must sign.", show_default=False)
]
AddedRoots = Annotated[
    list[Path] | None, typer.Option(help="Trust this root key (*.pub) too; repeat.", show_default=False)
]
RootThreshold = Annotated[
    int | None, typer.Option(min=1, help="How many root keys must sign.", show_default=False)
]
Expires = Annotated[
    str | None, typer.Option(help="Days until it must be renewed, or never.", show_default=False)
]
RootKey = Annotated[
    list[Path] | None,
    typer.Option(
        help="Root key to sign with; repeat where several must. (default: DIR/root.key)", show_default=False
    ),
]


@app.callback()
def keys() -> None:
    """Release and root keys, certificates, and whom boards trust."""


@app.command()
def create(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write them.", show_default=False)],
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address the agent is reached at; may be repeated.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Begin anew; what is there is moved aside.")] = False,
) -> None:
    """Make a release key, a root key, an authority, and certificates for agent, deployer and observer."""
    written = Credentials(folder).write(host or [], force=force)
    typer.echo(f"Credentials in {folder}: keep release.key and ca.key on this machine, root.key off line.")
    typer.echo(f"A board needs: {folder}/agent.pem, agent.key, ca.pem, release.pub.")
    _tell_aside(written)


@app.command()
def certificate(
    folder: Folder,
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address the agent is reached at; may be repeated.", show_default=False),
    ] = None,
    role: Annotated[
        CertificateRole, typer.Option(help="Who it is for: a board's agent, or a client.")
    ] = CertificateRole.AGENT,
) -> None:
    """Make one more certificate, for a board or a client; also in place of one that ends."""
    written = Credentials(folder).certificate(role.value, host or [])
    key, pem = written.files
    typer.echo(f"{pem} and {key.name} written, signed by {folder}/ca.key.")
    if role is CertificateRole.AGENT:
        typer.echo("The board needs them as agent.pem and agent.key, and its agent a restart.")
    _tell_aside(written)


@app.command()
@stoppable()
def trust(
    ctx: typer.Context,
    folder: Folder,
    hosts: ToldBoards = None,
    add: AddedKeys = None,
    threshold: Threshold = None,
    add_root: AddedRoots = None,
    root_threshold: RootThreshold = None,
    expires: Expires = None,
    root_key: RootKey = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Show whom boards trust, change it, or tell boards about it. A change writes the next trust-N.json."""
    if not hosts:
        refuse_without(ctx, "HOST:PORT", "insecure")
    keys, signing = Credentials(folder), root_key or []
    if add or threshold:
        _wrote(keys.add_keys("release", add or [], threshold=threshold, root_keys=signing))
    if add_root or root_threshold:
        _wrote(keys.add_keys("root", add_root or [], threshold=root_threshold, root_keys=signing))
    if expires is not None:
        _wrote(keys.renew(parse_days(expires), root_keys=signing))
    if hosts:
        _tell(keys, hosts, insecure=insecure, as_json=as_json)
        return
    statement = keys.trust()
    emit("trust", statement, as_json=as_json)
    if not as_json:
        print_result(console(), statement)


@app.command()
def rotate(
    folder: Folder,
    root: Annotated[bool, typer.Option("--root", help="The root key instead of the release key.")] = False,
    root_key: RootKey = None,
) -> None:
    """Make a new release key; the old one stays trusted until it is revoked. With --root, a new root key."""
    name: Literal["release", "root"] = "root" if root else "release"
    old, path = Credentials(folder).rotate(name, root_keys=root_key or [])
    typer.echo(
        f"New {name} key in {folder}/{name}.key; the old one, {old[:8]}, is kept as {name}-{old[:8]}.key."
    )
    _wrote(path)
    if not root:
        typer.echo(
            f"Artifacts of the old key still run. To end that: edgewright keys revoke {folder} {old[:8]}"
        )


@app.command()
def revoke(
    folder: Folder,
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A release key (*.pub, or its id), a client's certificate (*.pem), an artifact or its digest.",
            show_default=False,
        ),
    ],
    stop: Annotated[
        bool, typer.Option("--stop", help="Boards stop serving it too, not only refuse it.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads a board's refusal.")] = "",
    root_key: RootKey = None,
) -> None:
    """Revoke a key, a certificate or a release. What serves goes on serving, unless --stop."""
    revocation, path = Credentials(folder).revoke(what, stop=stop, reason=reason, root_keys=root_key or [])
    typer.echo(
        f"Revoked {revocation.kind} {revocation.sha256[:12]}{', and what serves of it stops' if stop else ''}."
    )
    _wrote(path)
    if revocation.kind == "key" and revocation.sha256 == _release_key_id(folder):
        typer.echo(
            f"Builds sign with it as {folder}/release.key, and boards will refuse that: edgewright keys rotate {folder}"
        )


@app.command()
def sign(
    artifact: Annotated[Path, typer.Argument(help="RUN/artifact.", show_default=False)],
    folder: Folder,
) -> None:
    """Add the release key's signature to an artifact, after a rotation or where several keys must sign."""
    signed = Credentials(folder).sign(artifact)
    typer.echo(f"{signed.digest[:12]} is signed by {folder}/release.key; its digest is the same.")


def _tell(keys: Credentials, hosts: list[str], *, insecure: bool, as_json: bool) -> None:
    """Tells boards the newest document; a line for each. Raises RefusedError if one did not take it up."""
    update = keys.tell(hosts, insecure=insecure)
    emit("trust-update", update, as_json=as_json)
    if not as_json:
        for board in update.boards:
            for line in board.lines():
                typer.echo(line, err=board.error is not None)
    if update.failed:
        first = update.failed[0].host
        raise RefusedError(f"{len(update.failed)} of {len(hosts)} boards did not take it up, first {first}.")


def _release_key_id(folder: Path) -> str | None:
    """Returns the id of the key that builds sign with; None where the folder has none."""
    public = folder / "release.pub"
    return key_id(load_public_key(public)) if public.is_file() else None


def _tell_aside(written: Written) -> None:
    if written.aside is not None:
        typer.echo(f"What was there before is in {written.aside}.")


def _wrote(path: Path) -> None:
    typer.echo(f"{path} written. Boards learn it by: edgewright keys trust {path.parent} HOST:PORT")

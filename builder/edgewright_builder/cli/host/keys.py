"""`edgewright keys`: the credentials folder, and whom boards trust."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgewright_builder.artifact.artifact import resign_artifact
from edgewright_builder.cli.connection import run
from edgewright_builder.cli.given import refuse_without
from edgewright_builder.cli.host.trust_display import show, spread
from edgewright_builder.cli.options import AsJson, Insecure
from edgewright_builder.keys import trust_issuer
from edgewright_builder.keys.credentials import Written, create_credentials, issue_certificate
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.keys.revocations import revocation_of


class CertificateRole(str, Enum):
    """Whose a certificate is."""

    AGENT = "agent"
    DEPLOYER = "deployer"
    OBSERVER = "observer"


app = typer.Typer(help="Release and root keys, certificates, and whom boards trust.", no_args_is_help=True)

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of `edgewright keys create`.", show_default=False)
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
    written = create_credentials(folder, host or [], force=force)
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
    written = issue_certificate(folder, role.value, host or [])
    key, pem = written.files
    typer.echo(f"{pem} and {key.name} written, signed by {folder}/ca.key.")
    if role is CertificateRole.AGENT:
        typer.echo("The board needs them as agent.pem and agent.key, and its agent a restart.")
    _tell_aside(written)


@app.command()
def trust(
    ctx: typer.Context,
    folder: Folder,
    hosts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="HOST:PORT...", help="Boards to tell the newest document.", show_default=False
        ),
    ] = None,
    add: Annotated[
        list[Path] | None,
        typer.Option(help="Trust this release key (*.pub) too; repeat.", show_default=False),
    ] = None,
    threshold: Annotated[
        int | None, typer.Option(min=1, help="How many release keys must sign.", show_default=False)
    ] = None,
    add_root: Annotated[
        list[Path] | None, typer.Option(help="Trust this root key (*.pub) too; repeat.", show_default=False)
    ] = None,
    root_threshold: Annotated[
        int | None, typer.Option(min=1, help="How many root keys must sign.", show_default=False)
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Days until it must be renewed, or never.", show_default=False)
    ] = None,
    root_key: RootKey = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Show whom boards trust, change it, or tell boards about it. A change writes the next trust-N.json."""
    if not hosts:
        refuse_without(ctx, "HOST:PORT", "insecure")
    signing = root_key or []
    if add or threshold:
        _wrote(trust_issuer.add_keys(folder, signing, "release", add or [], threshold))
    if add_root or root_threshold:
        _wrote(trust_issuer.add_keys(folder, signing, "root", add_root or [], root_threshold))
    if expires is not None:
        _wrote(trust_issuer.renew(folder, signing, trust_issuer.parse_days(expires)))
    if hosts:
        run(spread(folder, hosts, insecure=insecure, as_json=as_json))
    else:
        show(folder, as_json=as_json)


@app.command()
def rotate(
    folder: Folder,
    root: Annotated[bool, typer.Option("--root", help="The root key instead of the release key.")] = False,
    root_key: RootKey = None,
) -> None:
    """Make a new release key; the old one stays trusted until it is revoked. With --root, a new root key."""
    turn = trust_issuer.rotate_root_key if root else trust_issuer.rotate_release_key
    old, path = turn(folder, root_key or [])
    name = "root" if root else "release"
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
    trust_issuer.begin(folder)
    found = revocation_of(folder, what, stop=stop, reason=reason)
    path = trust_issuer.revoke(folder, root_key or [], found)
    typer.echo(f"Revoked {found.kind} {found.sha256[:12]}{', and what serves of it stops' if stop else ''}.")
    _wrote(path)


@app.command()
def sign(
    artifact: Annotated[Path, typer.Argument(help="RUN/artifact.", show_default=False)],
    folder: Folder,
) -> None:
    """Add the release key's signature to an artifact, after a rotation or where several keys must sign."""
    signed = resign_artifact(artifact, load_signing_key(folder / "release.key"))
    typer.echo(f"{signed.digest[:12]} is signed by {folder}/release.key; its digest is the same.")


def _tell_aside(written: Written) -> None:
    if written.aside is not None:
        typer.echo(f"What was there before is in {written.aside}.")


def _wrote(path: Path) -> None:
    typer.echo(f"{path} written. Boards learn it by: edgewright keys trust {path.parent} HOST:PORT")

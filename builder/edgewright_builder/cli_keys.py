"""`edgewright keys`: the credentials folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgewright_builder.keys import create_credentials

app = typer.Typer(help="Release key, certificate authority and certificates.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Adds the commands to the command line."""
    parent.add_typer(app, name="keys")


@app.callback()
def keys() -> None:
    """Release key, certificate authority and certificates."""


@app.command()
def create(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write them.", show_default=False)],
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address the agent is reached at; may be repeated.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Make a release key, an authority, and certificates for agent, deployer and observer."""
    create_credentials(folder, host or [], force=force)
    typer.echo(f"Credentials in {folder}: keep release.key and ca.key on this machine.")
    typer.echo(f"A board needs: {folder}/agent.pem, agent.key, ca.pem, release.pub.")

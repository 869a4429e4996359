"""`edgewright mirror`: bytes by CDN or registry, the decision by gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgewright.sizes import format_bytes
from edgewright_builder.python_api.artifacts import add_mirrors, export_mirror, open_artifact

app = typer.Typer(
    help="Let boards fetch from a web server or an OCI registry.", no_args_is_help=True, add_completion=False
)

Artifact = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="RUN/artifact.", show_default=False)]


@app.command()
def add(
    artifact: Artifact,
    url: Annotated[
        list[str],
        typer.Argument(
            metavar="URL...",
            help="https://HOST/PATH of an export, or oci://REGISTRY/NAME.",
            show_default=False,
        ),
    ],
    credentials: Annotated[
        Path,
        typer.Option(envvar="EDGEWRIGHT_CREDENTIALS", help="Folder with release.key.", show_default=False),
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Forget the mirrors it names now.")] = False,
) -> None:
    """Name mirrors in an artifact's manifest and sign it again; boards call no address that is not signed."""
    before = open_artifact(artifact).digest
    signed = add_mirrors(artifact, url, credentials=credentials, replace=replace)
    for mirror in signed.manifest.mirrors:
        typer.echo(f"mirror: {mirror.url} ({mirror.layout})")
    typer.echo(f"Signed again: the artifact is now {signed.digest[:12]}; its files are the same.")
    if signed.manifest.adapter_slots is not None and signed.digest != before:
        typer.echo(
            f"Adapters built on {before[:12]} do not serve on it: build them again with --resume, which trains "
            "and evaluates nothing anew."
        )


@app.command()
def export(
    artifact: Artifact,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What the web server will serve.", show_default=False)
    ],
) -> None:
    """Write an artifact's files as an OCI image layout, to be served as it is or copied to a registry."""
    written = export_mirror(artifact, folder)
    typer.echo(
        f"{written.files} files, {format_bytes(written.size_bytes)}, written to {folder}; files that were there stayed."
    )
    typer.echo(f"Serve {folder} and name its address: edgewright mirror add {artifact} https://HOST/PATH")

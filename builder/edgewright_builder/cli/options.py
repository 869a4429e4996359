"""Options that several commands share, the same words for each. Light to import: not every command talks to a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Host = Annotated[
    str, typer.Argument(metavar="HOST:PORT", help="Where the agent listens.", show_default=False)
]
Credentials = Annotated[
    Path | None,
    typer.Option(
        envvar="EDGEWRIGHT_CREDENTIALS", help="Folder of `edgewright keys create`.", show_default=False
    ),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="No TLS; for an agent on this machine only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]
Save = Annotated[
    Path | None, typer.Option(help="Write the JSON document to this file too.", show_default=False)
]
Budget = Annotated[
    str | None,
    typer.Option(help="Memory it may take, e.g. 3.5GiB. (default: the profile's)", show_default=False),
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="Engine that is to serve. (default: the one predicted to be fastest there)", show_default=False
    ),
]

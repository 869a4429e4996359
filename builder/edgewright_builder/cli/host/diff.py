"""The diff command: what differs between two artifacts, and what sending the second costs."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright_builder.cli.options import AsJson, Credentials, Insecure, Save
from edgewright_builder.cli.output import console, emit, stoppable
from edgewright_builder.python_api.artifacts import diff as compare_artifacts
from edgewright_builder.show.sheet import print_result

_Which = typer.Argument(
    help="A folder, HOST:PORT for what it serves, or HOST:PORT/DIGEST for a release there.",
    show_default=False,
)


@stoppable()
def diff(
    old: Annotated[str, _Which],
    new: Annotated[str, _Which],
    credentials: Credentials = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Show what differs between two artifacts: manifest, accuracy, files, tensors, bytes a push would send."""
    comparison = compare_artifacts(old, new, credentials=credentials, insecure=insecure)
    emit("diff", comparison, as_json=as_json, save=save)
    if not as_json:
        print_result(console(), comparison)

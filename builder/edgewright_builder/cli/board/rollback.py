"""`edgewright rollback`: a board goes back to its previous release."""

from __future__ import annotations

from edgewright_builder.cli.boards import open_board
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.cli.output import console, emit, stoppable
from edgewright_builder.cli.progress_view import ProgressView
from edgewright_builder.python_api.async_board import NotCommittedError


@stoppable()
def rollback(
    host: Host, credentials: Credentials = None, insecure: Insecure = False, as_json: AsJson = False
) -> None:
    """Go back to the release that was active before."""
    out = console(as_json=as_json)
    with open_board(host, credentials, insecure) as board, ProgressView(out).shown() as view:
        try:
            verdict = board.rollback(on_progress=view)
        except NotCommittedError as error:
            emit("rollback", error.result, as_json=as_json)
            raise
    emit("rollback", verdict, as_json=as_json)
    out.print(f"{host} serves {verdict.active_release[:12]} again.", markup=False)

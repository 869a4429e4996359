"""The board that a command talks to."""

from __future__ import annotations

from pathlib import Path

import typer

from edgewright.errors import EdgewrightError
from edgewright_builder.python_api.board import Board


def open_board(host: str, credentials: Path | None, insecure: bool) -> Board:
    """Returns the board for the options given, which says on stderr why it is waited for. Raises InputError."""
    return Board(host, credentials=credentials, insecure=insecure, on_wait=_Waiting())


class _Waiting:
    """Says once for each reason why a command waits."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, error: EdgewrightError) -> None:
        if str(error) not in self._said:
            self._said.add(str(error))
            typer.echo(f"edgewright: waiting: {error}", err=True)

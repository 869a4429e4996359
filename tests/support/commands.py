"""Commands of `edgewright`, called in this process."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from edgewright_builder.cli.main import app


def invoke(*arguments: object, **environment: str) -> Any:
    """Runs `edgewright` with these arguments; an error is the result's `exception`."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def output(*arguments: object) -> str:
    """Returns what a command that succeeds prints."""
    result = invoke(*arguments)
    assert result.exit_code == 0, result.exception
    return str(result.stdout)

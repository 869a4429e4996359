"""How commands print: results for people on stdout, or one JSON document for scripts and everything else on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import typer
from rich.console import Console

from edgewright.command_line import speaks_unicode
from edgewright.errors import InputError
from edgewright_builder.show.document import document

# The version of each document. Another field, or another type of one, takes the next number: docs/json.md says why.
VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "status": 1,
        "releases": 1,
        "push": 1,
        "rollout": 1,
        "rollback": 1,
        "gc": 1,
        "scrub": 1,
        "generate": 1,
        "telemetry": 1,
        "telemetry-record": 1,
        "bench": 1,
        "eval": 2,
        "calibrate": 1,
        "check": 2,
        "check-teacher": 1,
        "models": 1,
        "matrix": 2,
        "plan": 2,
        "diff": 1,
        "profiles": 1,
        "trust": 1,
        "trust-update": 1,
    }
)


def console(*, as_json: bool = False) -> Console:
    """Returns where people read: stdout, or stderr when stdout is for a script."""
    return Console(stderr=as_json, highlight=False)


def document_of(schema: str, result: Any) -> dict[str, Any]:
    """Returns the result as a JSON object that names its schema, such as `edgewright.status.v1`."""
    content = document(result)
    assert isinstance(content, Mapping), "results are objects"
    return {"schema": f"edgewright.{schema}.v{VERSIONS[schema]}", **content}


def emit(schema: str, result: Any, *, as_json: bool, save: Path | None = None) -> None:
    """Prints the result as a JSON document if it was asked for, and saves it if a file was named."""
    content = document_of(schema, result)
    if as_json:
        typer.echo(json_text(content, indent=2))
    if save is not None:
        write_text(save, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def emit_line(schema: str, result: Any) -> None:
    """Prints the result as a JSON document on one line."""
    typer.echo(json_text(document_of(schema, result)))


def json_text(content: Mapping[str, Any], indent: int | None = None) -> str:
    """Returns a document as standard output can carry it: in ASCII unless that takes every character."""
    return json.dumps(content, indent=indent, ensure_ascii=not speaks_unicode(), allow_nan=False)


def write_text(path: Path, text: str) -> None:
    """Writes a file and the folder it is in. Raises InputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} can't be written ({error.strerror}); choose another file.") from error


@contextmanager
def stoppable(sentence: str = "Stopped.") -> Iterator[None]:
    """Ctrl-C ends the command with this sentence and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        if sentence:
            typer.echo(f"edgewright: {sentence}", err=True)
        raise typer.Exit(130) from None

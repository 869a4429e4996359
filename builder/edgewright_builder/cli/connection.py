"""What the commands that talk to a board share: the connection, and how they print."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console

from edgewright.errors import EdgewrightError, InputError, RefusedError
from edgewright_builder.device.channel import parse_address
from edgewright_builder.device.client import DeviceClient
from edgewright_builder.device.verdict import DeploymentVerdict

T = TypeVar("T")


def connect(host: str, credentials: Path | None, insecure: bool) -> DeviceClient:
    """A client for the options given; call it inside the event loop. Raises InputError if they don't fit."""
    address = parse_address(host)
    if insecure:
        return DeviceClient(address, None, on_wait=_Waiting())
    if credentials is None:
        here = ", or --insecure as the agent is on this machine" if address.is_loopback else ""
        raise InputError(
            f"{address} needs credentials: give --credentials DIR or EDGEWRIGHT_CREDENTIALS{here}."
        )
    return DeviceClient(address, credentials, on_wait=_Waiting())


class _Waiting:
    """Says on stderr, once for each reason, why a command waits for its board."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, error: EdgewrightError) -> None:
        if str(error) not in self._said:
            self._said.add(str(error))
            typer.echo(f"edgewright: waiting: {error}", err=True)


def run(coroutine: Coroutine[Any, Any, T], *, when_stopped: str = "Stopped.") -> T:
    """Runs a command to its end; Ctrl-C ends it with a sentence and exit code 130."""
    try:
        return asyncio.run(coroutine)
    except KeyboardInterrupt:
        typer.echo(when_stopped, err=True)
        raise typer.Exit(130) from None


def console(*, as_json: bool = False) -> Console:
    """Where people read: stdout, or stderr when stdout is for a script."""
    return Console(stderr=as_json, highlight=False)


def as_document(message: Message) -> dict[str, Any]:
    """A message in protobuf's JSON form, with the names of the .proto files, and digests in hex as everywhere."""
    document: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    for field, value in message.ListFields():
        document[field.name] = _in_hex(value, document[field.name])
    return document


def _in_hex(value: Any, plain: Any) -> Any:
    """`plain`, protobuf's JSON of `value`, where bytes are hex instead of base64."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Message):
        return as_document(value)
    if isinstance(plain, list):
        return [_in_hex(*pair) for pair in zip(value, plain, strict=True)]
    return plain


def emit(document: dict[str, Any], *, as_json: bool, save: Path | None = None) -> None:
    """Prints the document if it was asked for, and saves it if a file was named."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if as_json:
        typer.echo(text)
    if save is not None:
        try:
            save.parent.mkdir(parents=True, exist_ok=True)
            save.write_text(text + "\n")
        except OSError as error:
            raise InputError(f"{save} can't be written ({error.strerror}).") from error


def require_commit(host: str, verdict: DeploymentVerdict) -> None:
    """Raises RefusedError if the board did not keep what it was asked to serve."""
    if verdict.committed:
        return
    serving = f"it serves {verdict.active_release[:12]}" if verdict.active_release else "it serves nothing"
    raise RefusedError(f"{host} did not keep the release ({verdict.message}); {serving}.")

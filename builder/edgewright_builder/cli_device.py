"""Commands that ask a board and use what it serves: status, releases, rollback, generate."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.console import Console

from edgewright.v1.deployment_pb2 import GetDeviceResponse, Release
from edgewright.v1.inference_pb2 import Chat, ChatMessage, Completion, GenerateRequest
from edgewright_builder import cli_measure
from edgewright_builder.cli_connection import (
    AsJson,
    Credentials,
    Host,
    Insecure,
    as_document,
    connect,
    console,
    emit,
    require_commit,
    run,
)
from edgewright_builder.device import describe, display
from edgewright_builder.device.client import DeviceClient
from edgewright_builder.device.patience import Patience
from edgewright_builder.device.verdict import Verdict, watch_verdict


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (status, releases, rollback, generate):
        app.command()(command)
    cli_measure.register(app)


def status(
    host: Host, credentials: Credentials = None, insecure: Insecure = False, as_json: AsJson = False
) -> None:
    """Show what a board is, what it can run and what it serves."""

    async def work() -> tuple[GetDeviceResponse, list[Release]]:
        async with connect(host, credentials, insecure) as client:
            return await client.get_device(), await client.list_releases()

    device, found = run(work())
    emit(as_document(device), as_json=as_json)
    if not as_json:
        display.facts(
            console(), f"{device.hostname} ({device.profile_id})", describe.device_facts(device, found)
        )


def releases(
    host: Host, credentials: Credentials = None, insecure: Insecure = False, as_json: AsJson = False
) -> None:
    """List the releases on a board."""

    async def work() -> list[Release]:
        async with connect(host, credentials, insecure) as client:
            return await client.list_releases()

    found = run(work())
    emit({"releases": [as_document(release) for release in found]}, as_json=as_json)
    if not as_json:
        display.table(console(), describe.RELEASE_COLUMNS, [describe.release_row(each) for each in found])


def rollback(
    host: Host, credentials: Credentials = None, insecure: Insecure = False, as_json: AsJson = False
) -> None:
    """Go back to the release that was active before."""
    out = console(as_json=as_json)

    async def work() -> Verdict:
        async with connect(host, credentials, insecure) as client:
            target = await client.roll_back()
            out.print(f"going back to {target.hex()[:12]}")
            return await watch_verdict(client, target, Patience(90.0), lambda text: out.print(f"  {text}"))

    verdict = run(work())
    emit(dataclasses.asdict(verdict), as_json=as_json)
    require_commit(host, verdict)
    out.print(f"{host} serves {verdict.active_release[:12]} again.")


def generate(
    host: Host,
    prompt: Annotated[str, typer.Argument(help="What to say to the model.", show_default=False)],
    credentials: Credentials = None,
    insecure: Insecure = False,
    chat: Annotated[
        bool, typer.Option("--chat/--raw", help="Use the chat template, or the prompt as it is.")
    ] = True,
    max_tokens: Annotated[int, typer.Option(min=0, help="0: as many as the context allows.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the most likely token.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    seed: Annotated[int | None, typer.Option(min=0, show_default=False)] = None,
    stop: Annotated[list[str] | None, typer.Option(help="May be repeated.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Generate text with the model a board serves; it streams to stdout."""
    request = GenerateRequest(
        max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed, stop=stop or []
    )
    if chat:
        request.chat.CopyFrom(Chat(messages=[ChatMessage(role="user", content=prompt)]))
    else:
        request.prompt = prompt

    async def work() -> tuple[str, Completion]:
        async with connect(host, credentials, insecure) as client:
            return await _stream(client, request, echo=not as_json)

    text, completion = run(work())
    emit({"text": text, **as_document(completion)}, as_json=as_json)
    if not as_json:
        Console(stderr=True, highlight=False).print(describe.completion_line(completion), style="dim")


async def _stream(client: DeviceClient, request: GenerateRequest, *, echo: bool) -> tuple[str, Completion]:
    pieces: list[str] = []
    completion = Completion()
    async for event in client.generate(request):
        if event.HasField("completion"):
            completion = event.completion
            continue
        pieces.append(event.delta.text)
        if echo:
            typer.echo(event.delta.text, nl=False)
    if echo:
        typer.echo()
    return "".join(pieces), completion

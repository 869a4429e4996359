"""Commands that deploy to a board and use what it serves: push, status, releases, rollback, generate."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from rich.console import Console

from edgewright.v1.deployment_pb2 import GetDeviceResponse, Release
from edgewright.v1.inference_pb2 import Chat, ChatMessage, Completion, GenerateRequest
from edgewright_agent.errors import RefusedError
from edgewright_agent.trust import load_public_key
from edgewright_builder import cli_measure
from edgewright_builder.artifact import open_artifact
from edgewright_builder.cli_connection import (
    AsJson,
    Credentials,
    Host,
    Insecure,
    Save,
    as_document,
    connect,
    console,
    emit,
    run,
)
from edgewright_builder.device import describe, display
from edgewright_builder.device.client import DeviceClient
from edgewright_builder.device.patience import Patience
from edgewright_builder.device.push import Listener, PushResult
from edgewright_builder.device.push import push as push_artifact
from edgewright_builder.device.verdict import Verdict, watch_verdict


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (push, status, releases, rollback, generate):
        app.command()(command)
    cli_measure.register(app)


def push(
    artifact: Annotated[
        Path, typer.Argument(help="The artifact's folder, RUN/artifact.", show_default=False)
    ],
    host: Host,
    credentials: Credentials = None,
    insecure: Insecure = False,
    activate: Annotated[
        bool, typer.Option("--activate/--no-activate", help="Put it to work, or stage it only.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Try a release again that failed here before.")
    ] = False,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Send an artifact to a board, and wait for the board's verdict. Resumes where it was interrupted."""
    out = console(as_json=as_json)
    opened = open_artifact(artifact)
    out.print(f"{opened.manifest.name} {opened.manifest.version} ({opened.digest[:12]})", markup=False)
    bar = display.TransferBar(out)
    listener = Listener(
        planned=lambda plan: out.print(describe.plan_line(plan), markup=False, soft_wrap=True),
        sent=bar.update,
        note=lambda text: out.print(f"  {text}", markup=False, soft_wrap=True),
    )

    async def work() -> PushResult:
        async with connect(host, credentials, insecure) as client:
            with bar.shown():
                return await push_artifact(
                    client,
                    artifact,
                    _public_key(credentials),
                    activate=activate,
                    force=force,
                    listener=listener,
                )

    result = run(work(), when_stopped="Stopped. Push again to go on from here.")
    emit(_push_document(result), as_json=as_json, save=save)
    _print_push(out, result)
    if result.verdict is not None:
        _require_commit(host, result.verdict)


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
    _require_commit(host, verdict)
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


def _public_key(credentials: Path | None) -> Ed25519PublicKey | None:
    """The key the artifact must be signed with, where this machine knows it; the board checks in any case."""
    path = credentials / "release.pub" if credentials is not None else None
    return load_public_key(path) if path is not None and path.exists() else None


def _push_document(result: PushResult) -> dict[str, Any]:
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return fields | {
        "plan": dataclasses.asdict(result.plan),
        "memory": as_document(result.memory),
        "verdict": dataclasses.asdict(result.verdict) if result.verdict is not None else None,
    }


def _print_push(out: Console, result: PushResult) -> None:
    for line in describe.push_lines(result):
        out.print(line)
    if result.verdict is None:
        out.print("staged; not activated")
        return
    if result.verdict.probes:
        display.table(
            out, describe.PROBE_COLUMNS, [describe.probe_row(probe) for probe in result.verdict.probes]
        )
    out.print(f"{result.verdict.outcome.replace('_', ' ')}: {result.verdict.message}", markup=False)


def _require_commit(host: str, verdict: Verdict) -> None:
    if verdict.committed:
        return
    serving = f"it serves {verdict.active_release[:12]}" if verdict.active_release else "it serves nothing"
    raise RefusedError(f"{host} did not keep the release ({verdict.message}); {serving}.")

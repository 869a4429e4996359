"""Commands that ask a board, keep its store in order and use what it serves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from edgewright.errors import RefusedError
from edgewright.sizes import parse_bytes
from edgewright.v1.deployment_pb2 import (
    CollectGarbageResponse,
    GetDeviceResponse,
    Release,
    ScrubStoreResponse,
)
from edgewright.v1.inference_pb2 import Chat, ChatMessage, Completion, GenerateRequest
from edgewright_builder.cli import measure as cli_measure
from edgewright_builder.cli.connection import as_document, connect, console, emit, require_commit, run
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.device.client import DeviceClient
from edgewright_builder.device.patience import Patience
from edgewright_builder.device.releases import Deleted, delete_releases, release_named, unneeded
from edgewright_builder.device.verdict import Verdict, watch_verdict
from edgewright_builder.run.progress import Reporter
from edgewright_builder.show import describe, display


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (status, releases, rollback, gc, scrub, generate):
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
    host: Host,
    credentials: Credentials = None,
    insecure: Insecure = False,
    delete: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIGEST",
            help="Delete this release first, named by the beginning of its digest; may be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the releases on a board, or delete some of them."""

    async def work() -> tuple[Sequence[Deleted], list[Release]]:
        async with connect(host, credentials, insecure) as client:
            found = await client.list_releases()
            named = [release_named(found, digest, host) for digest in delete or []]
            deleted = await delete_releases(client, named)
            return deleted, await client.list_releases() if deleted else found

    deleted, left = run(work())
    document = {"releases": [as_document(release) for release in left]}
    emit({**describe.deleted_document(deleted), **document}, as_json=as_json)
    if not as_json:
        for line in describe.deleted_lines(deleted):
            typer.echo(line)
        display.table(console(), describe.RELEASE_COLUMNS, [describe.release_row(each) for each in left])


def rollback(
    host: Host, credentials: Credentials = None, insecure: Insecure = False, as_json: AsJson = False
) -> None:
    """Go back to the release that was active before."""
    out = console(as_json=as_json)

    async def work() -> Verdict:
        async with connect(host, credentials, insecure) as client:
            target = await client.roll_back()
            out.print(f"going back to {target.hex()[:12]}")
            return await watch_verdict(
                client, target, Patience(90.0), lambda text: out.print(f"  {text}", markup=False)
            )

    verdict = run(work())
    emit(dataclasses.asdict(verdict), as_json=as_json)
    require_commit(host, verdict)
    out.print(f"{host} serves {verdict.active_release[:12]} again.", markup=False)


def gc(
    host: Host,
    credentials: Credentials = None,
    insecure: Insecure = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")] = False,
    with_releases: Annotated[
        bool,
        typer.Option(
            "--releases",
            help="Delete all releases but the active and the previous one and what they need, too.",
        ),
    ] = False,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Remove what was found corrupt, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Free what no release on a board needs: blobs nobody asked about for an hour, uploads idle for a day."""

    async def work() -> tuple[Sequence[Deleted], CollectGarbageResponse]:
        async with connect(host, credentials, insecure) as client:
            chosen = unneeded(await client.list_releases()) if with_releases else []
            deleted = await delete_releases(client, chosen, dry_run=dry_run)
            return deleted, await client.collect_garbage(dry_run=dry_run, quarantine=quarantine)

    deleted, garbage = run(work())
    emit({**describe.deleted_document(deleted), **as_document(garbage)}, as_json=as_json)
    if not as_json:
        for line in (*describe.deleted_lines(deleted), *describe.garbage_lines(garbage, dry_run=dry_run)):
            typer.echo(line)


def scrub(
    host: Host,
    credentials: Credentials = None,
    insecure: Insecure = False,
    rate: Annotated[
        str | None,
        typer.Option(
            help="Bytes a second at most, e.g. 20MiB; if not told, as fast as the disk.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have a board verify everything it stores. What is corrupt is put in quarantine and must be pushed again."""
    bytes_per_second_max = 0 if rate is None else parse_bytes(rate)
    reporter = Reporter(console(as_json=as_json))

    async def work() -> ScrubStoreResponse:
        last = ScrubStoreResponse()
        async with connect(host, credentials, insecure) as client:
            with reporter.stage_progress("scrub"):
                async for last in client.scrub_store(bytes_per_second_max):
                    reporter.step(last.bytes, max(last.total_bytes, 1), f"{last.blobs} files")
        return last

    found = run(work())
    emit(as_document(found), as_json=as_json)
    if not as_json:
        typer.echo(describe.scrub_line(found))
    if found.corrupt_blobs or found.damaged_releases:
        raise RefusedError(f"{host} holds damaged files; push the releases named above again.")


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
        Console(stderr=True, highlight=False).print(
            describe.completion_line(completion), style="dim", markup=False
        )


async def _stream(client: DeviceClient, request: GenerateRequest, *, echo: bool) -> tuple[str, Completion]:
    pieces: list[str] = []
    completion = Completion()
    async for event in client.generate(request):
        text = "".join(delta.text for delta in event.deltas)
        pieces.append(text)
        if echo:
            typer.echo(text, nl=False)
        if event.HasField("completion"):
            completion = event.completion
    if echo:
        typer.echo()
    return "".join(pieces), completion

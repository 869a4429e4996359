"""`edgewright generate`: text from the model a board serves."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from edgewright.v1.inference_pb2 import Chat, ChatMessage, Completion, GenerateRequest
from edgewright_builder.cli.connection import as_document, connect, emit, run
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.device.client import DeviceClient
from edgewright_builder.show import describe


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
    top_p: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Choose among the most likely tokens that sum to this.")
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same answer.", show_default=False)
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="End the answer before this text. May be repeated.", show_default=False),
    ] = None,
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

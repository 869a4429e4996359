"""`edgewright generate`: text from the model a board serves."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from edgewright_builder.cli.boards import open_board
from edgewright_builder.cli.options import AsJson, Credentials, Host, Insecure
from edgewright_builder.cli.output import emit, stoppable
from edgewright_builder.device_client.messages import printable

Prompt = Annotated[str, typer.Argument(help="What to say to the model.", show_default=False)]
Chat = Annotated[bool, typer.Option("--chat/--raw", help="Use the chat template, or the prompt as it is.")]
MaxTokens = Annotated[int, typer.Option(min=0, help="0: as many as the context allows.")]
Temperature = Annotated[float, typer.Option(min=0.0, max=100.0, help="0: always the most likely token.")]
TopP = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Choose among the most likely tokens that sum to this.")
]
Seed = Annotated[
    int | None, typer.Option(min=0, help="The same seed gives the same answer.", show_default=False)
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="End the answer before this text. May be repeated.", show_default=False),
]


@stoppable()
def generate(
    host: Host,
    prompt: Prompt,
    credentials: Credentials = None,
    insecure: Insecure = False,
    chat: Chat = True,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    stop: Stop = None,
    as_json: AsJson = False,
) -> None:
    """Generate text with the model a board serves; it streams to stdout."""
    with open_board(host, credentials, insecure) as board:
        generation = board.generate(
            prompt,
            chat=chat,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop=stop or [],
        )
        for piece in generation:
            if not as_json:
                typer.echo(printable(piece), nl=False)
    emit("generate", generation.completion, as_json=as_json)
    if not as_json:
        typer.echo()
        line = generation.completion.line
        Console(stderr=True, highlight=False).print(line, style="dim", markup=False, soft_wrap=True)

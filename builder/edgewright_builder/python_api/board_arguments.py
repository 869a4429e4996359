"""What callers may give to a board, and sentences for what they may not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.address import Address
from edgewright.errors import InputError
from edgewright.v1.inference_pb2 import Chat, ChatMessage, GenerateRequest
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.device_client.channel import parse_address, require_credentials
from edgewright_builder.device_client.messages import asking
from edgewright_builder.python_api.arguments import as_path, credentials_folder, wrong_type
from edgewright_builder.python_api.results.generation import ChatTurn

if TYPE_CHECKING:
    from edgewright_builder.python_api.run_folder import RunFolder


def board_address(address: str) -> Address:
    """Returns the address in HOST:PORT. Raises InputError."""
    if not isinstance(address, str):
        raise wrong_type("the board's address", address, 'text, such as "board-7.local:7443"')
    return parse_address(address)


def board_credentials(address: Address, credentials: str | Path | None, *, insecure: bool) -> Path | None:
    """Returns the folder to use, the environment's where none is given; None where there is none and none is needed.

    An `insecure` board is called without TLS; its folder only says which release key signs. Raises InputError.
    """
    folder = credentials_folder(credentials)
    if folder is None and not insecure:
        here = ", or --insecure as the agent is on this machine" if address.is_loopback else ""
        raise InputError(
            f"{address} needs credentials: give --credentials DIR or EDGEWRIGHT_CREDENTIALS{here}."
        )
    require_credentials(address, None if insecure else folder)
    return folder


def artifact_folder(artifact: str | Path | Artifact | RunFolder) -> Path:
    """Returns where an artifact lies: its folder, an opened one, or a finished run. Raises InputError."""
    if isinstance(artifact, Artifact):
        return artifact.folder
    if isinstance(artifact, (str, os.PathLike)):
        return as_path(artifact, "the artifact")
    folder = getattr(artifact, "folder", None)
    if not isinstance(folder, Path):
        raise wrong_type("the artifact", artifact, "its folder, an opened artifact or a run")
    return folder / "artifact"


def generate_request(
    prompt: str | Sequence[ChatTurn | Mapping[str, str]], *, chat: bool, **sampling: Any
) -> GenerateRequest:
    """Returns the request. Raises InputError for a prompt or a value of another type or out of bounds."""
    with asking("a generation"):
        request = GenerateRequest(**sampling)
    if not isinstance(prompt, (str, Sequence)):
        raise wrong_type("the prompt", prompt, "text, or a sequence of messages with role and content")
    turns = (ChatTurn("user", prompt),) if isinstance(prompt, str) else prompt
    with asking("a generation"):
        if chat:
            request.chat.CopyFrom(Chat(messages=[_message(turn) for turn in turns]))
        elif isinstance(prompt, str):
            request.prompt = prompt
        else:
            raise InputError("A prompt without the chat template is text; give chat=True for messages.")
    return request


def _message(turn: ChatTurn | Mapping[str, str]) -> ChatMessage:
    if isinstance(turn, ChatTurn):
        return ChatMessage(role=turn.role, content=turn.content)
    try:
        return ChatMessage(role=turn["role"], content=turn["content"])
    except (KeyError, TypeError):
        raise wrong_type("a message", turn, 'a mapping such as {"role": "user", "content": "…"}') from None

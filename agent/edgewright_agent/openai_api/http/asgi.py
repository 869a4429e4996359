"""The ASGI types that the server uses, reading a header, and sending an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = dict[str, Any]


class ClientGoneError(Exception):
    """The client closed its connection: nobody waits for the answer any more."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """Returns the value of the header `name`, which is in lower case; None if there is none."""
    return next((value for key, value in scope["headers"] if key == name), None)


async def send_start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    """Sends the status line and the headers."""
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def send_whole(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Sends an answer in one piece."""
    await send_start(send, status, {**headers, "content-length": str(len(body))})
    await send({"type": "http.response.body", "body": body})

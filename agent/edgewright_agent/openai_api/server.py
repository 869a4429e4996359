"""Serves the OpenAI-compatible API in the agent's event loop, and ends once answers under way have ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import cast

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from edgewright.address import Address
from edgewright_agent.inference import Inference
from edgewright_agent.openai_api.app import OpenAIApp
from edgewright_agent.openai_api.connections import Connections, peer_max
from edgewright_agent.openai_api.http.errors import ApiError
from edgewright_agent.openai_api.http.protocol import BoundedProtocol
from edgewright_agent.openai_api.listener import Listener, listening_sockets
from edgewright_agent.openai_api.settings import OpenAISettings
from edgewright_agent.runtime.file_handles import openai_connections_max

GRACE_SECONDS = 2.0


@contextlib.asynccontextmanager
async def serve_openai(settings: OpenAISettings, inference: Inference) -> AsyncIterator[str]:
    """Serves until the context ends; yields the base URL. Raises InputError: address in use, or not this machine's."""
    # Below that level uvicorn logs every bad request: anybody could fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    app = OpenAIApp(inference, settings)
    config = Config(app, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    total = openai_connections_max()
    listener = Listener(
        Connections(total, peer_max(total)),
        lambda on_lost: BoundedProtocol(config, state, on_lost),
        _tls(settings) if settings.is_encrypted else None,
        _no_room(total),
    )
    with listening_sockets(settings.listen) as sockets:
        try:
            async with listener.accepting(sockets):
                yield _url(settings, sockets)
        finally:
            await _finish(state)


def _no_room(total: int) -> ApiError:
    message = f"{total} connections are open, or {peer_max(total)} from your address; try again later."
    return ApiError(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too_many_connections",
        message,
        headers={"retry-after": "1"},
        close=True,
    )


def _tls(settings: OpenAISettings) -> ssl.SSLContext:
    assert settings.tls is not None, "see OpenAISettings"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls.certificate, settings.tls.key)
    return context


def _url(settings: OpenAISettings, sockets: Sequence[socket.socket]) -> str:
    if isinstance(settings.listen, Path):
        return f"unix:{settings.listen}"
    scheme = "https" if settings.is_encrypted else "http"
    return f"{scheme}://{Address(settings.listen.host, sockets[0].getsockname()[1])}/v1"


async def _finish(state: ServerState) -> None:
    """Waits for answers under way; cuts them off after the grace period."""
    connections = cast("set[HttpToolsProtocol]", state.connections)
    for connection in list(connections):
        connection.shutdown()
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=GRACE_SECONDS)
    for connection in list(connections):
        connection.transport.abort()
    if state.tasks:
        await asyncio.wait(state.tasks)

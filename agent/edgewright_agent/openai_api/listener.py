"""Opens the server's socket in the agent's event loop, and closes it once answers under way have ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from edgewright.address import Address
from edgewright.errors import InputError
from edgewright_agent.inference import Inference
from edgewright_agent.openai_api.app import OpenAIApp
from edgewright_agent.openai_api.protocol import BoundedProtocol
from edgewright_agent.openai_api.settings import OpenAISettings

HANDSHAKE_SECONDS = 10.0
GRACE_SECONDS = 2.0
SOCKET_MODE = 0o660  # its owner and its group


@contextlib.asynccontextmanager
async def serve_openai(settings: OpenAISettings, inference: Inference) -> AsyncIterator[str]:
    """Serves until the context ends; yields the base URL. Raises InputError: address in use, or not this machine's."""
    # Below that level uvicorn logs every bad request: anybody could fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = Config(
        OpenAIApp(inference, settings), ws="none", lifespan="off", log_config=None, access_log=False
    )
    config.load()
    state = ServerState()

    def connection() -> asyncio.Protocol:
        return BoundedProtocol(config, state, {})

    server = await _listen(settings, connection)
    try:
        yield _url(settings, server)
    finally:
        server.close()
        await _finish(state)
        if isinstance(settings.listen, Path):
            settings.listen.unlink(missing_ok=True)


async def _listen(settings: OpenAISettings, connection: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    loop, listen = asyncio.get_running_loop(), settings.listen
    try:
        if isinstance(listen, Path):
            server = await loop.create_unix_server(connection, str(listen))
            listen.chmod(SOCKET_MODE)
            return server
        if not settings.is_encrypted:
            return await loop.create_server(connection, listen.host, listen.port)
        return await loop.create_server(
            connection, listen.host, listen.port, ssl=_tls(settings), ssl_handshake_timeout=HANDSHAKE_SECONDS
        )
    except OSError as error:
        message = f"{listen} can't be listened on: {_reason(error)}. Choose another --openai."
        raise InputError(message) from None


def _reason(error: OSError) -> str | None:
    """Returns the system's message; asyncio replaces it by its own, except for a host name that does not resolve."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror
    return os.strerror(error.errno)


def _tls(settings: OpenAISettings) -> ssl.SSLContext:
    assert settings.tls is not None, "see OpenAISettings"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls.certificate, settings.tls.key)
    return context


def _url(settings: OpenAISettings, server: asyncio.Server) -> str:
    if isinstance(settings.listen, Path):
        return f"unix:{settings.listen}"
    port = server.sockets[0].getsockname()[1]
    scheme = "https" if settings.is_encrypted else "http"
    return f"{scheme}://{Address(settings.listen.host, port)}/v1"


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

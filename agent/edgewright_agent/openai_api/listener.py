"""Accepts connections on the server's sockets, within the limits, and hands each one to the HTTP protocol."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgewright.address import Address
from edgewright.errors import InputError
from edgewright_agent.openai_api.connections import Connection, Connections, peer_of
from edgewright_agent.openai_api.http.errors import ApiError
from edgewright_agent.openai_api.http.protocol import BoundedProtocol
from edgewright_agent.openai_api.unix_socket import bound_unix_socket

HANDSHAKE_SECONDS = 10.0
BACKLOG = 128  # connections that the kernel holds until they are accepted
SEND_BUFFER_BYTES = 32 * 1024  # in the kernel, which takes twice that: unread tokens stop their engine soon
PAUSE_SECONDS = 0.5  # before the next try where the board is out of file handles or memory
ABSENT_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

logger = logging.getLogger(__name__)

MakeProtocol = Callable[
    [Callable[[], None]], BoundedProtocol
]  # from what is called when the connection is lost


class Listener:
    """Accepts on several sockets until `close`."""

    def __init__(
        self, connections: Connections, protocol: MakeProtocol, tls: ssl.SSLContext | None, full: ApiError
    ) -> None:
        """`full` is what a client is answered when there is no room for its connection."""
        self._connections = connections
        self._protocol = protocol
        self._tls = tls
        self._full = full
        self._opening: set[asyncio.Task[None]] = set()  # connections whose handshake is under way

    @contextlib.asynccontextmanager
    async def accepting(self, sockets: Sequence[socket.socket]) -> AsyncIterator[None]:
        """Accepts connections until the context ends; those that are open stay open."""
        tasks = [asyncio.create_task(self._accept(listening)) for listening in sockets]
        try:
            yield
        finally:
            for task in (*tasks, *self._opening):
                task.cancel()
            await asyncio.gather(*tasks, *self._opening, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in EXHAUSTED:
                    logger.warning("No connection can be accepted: %s.", error.strerror)
                    await asyncio.sleep(PAUSE_SECONDS)
                continue
            self._open(accepted, address)

    def _open(self, accepted: socket.socket, address: Any) -> None:
        """Starts the protocol on a new connection, if there is room for it."""
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        protocol = self._protocol(lambda: self._connections.remove(connection))
        connection = Connection(
            peer_of(address), lambda: protocol.is_idle, lambda: self._close(protocol, task)
        )
        if not self._connections.admit(connection):
            self._refuse(accepted)
            return
        task = asyncio.create_task(self._start(accepted, protocol))
        self._opening.add(task)

        def started(_: asyncio.Task[None]) -> None:
            self._opening.discard(task)
            if not protocol.is_connected:
                accepted.close()
                self._connections.remove(connection)

        task.add_done_callback(started)

    async def _start(self, accepted: socket.socket, protocol: BoundedProtocol) -> None:
        handshake_seconds = None if self._tls is None else HANDSHAKE_SECONDS
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, accepted, ssl=self._tls, ssl_handshake_timeout=handshake_seconds
            )
        except OSError:  # a handshake that failed or took too long
            logger.debug("A connection ended in its handshake.", exc_info=True)

    def _close(self, protocol: BoundedProtocol, opening: asyncio.Task[None]) -> None:
        if protocol.is_connected:
            protocol.transport.abort()
        else:
            opening.cancel()

    def _refuse(self, accepted: socket.socket) -> None:
        """Says why and closes at once: waiting for the client would cost the handle that is not there."""
        with accepted, contextlib.suppress(OSError):
            if self._tls is None:
                accepted.send(self._full.response)


@contextlib.contextmanager
def listening_sockets(listen: Address | Path) -> Iterator[list[socket.socket]]:
    """Yields sockets that listen at an address or a path. Raises InputError: in use, not this machine's."""
    with contextlib.ExitStack() as stack:
        try:
            if isinstance(listen, Path):
                sockets = [stack.enter_context(bound_unix_socket(listen))]
            else:
                sockets = _bound_tcp_sockets(listen, stack)
            for bound in sockets:
                bound.listen(BACKLOG)
                bound.setblocking(False)
        except OSError as error:
            message = f"{listen} can't be listened on: {_reason(error)}. Choose another --openai."
            raise InputError(message) from None
        yield sockets


def _bound_tcp_sockets(listen: Address, stack: contextlib.ExitStack) -> list[socket.socket]:
    """Returns one socket for each address of the host, all on one port."""
    places = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    port, sockets = listen.port, []
    for family, kind, protocol, _, address in dict.fromkeys(places):
        try:
            bound = stack.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address[0], port, *address[2:]))
        except OSError as error:
            # `localhost` names ::1 too, which a machine may lack.
            if error.errno in ABSENT_FAMILY and len(places) > 1:
                continue
            raise
        port = bound.getsockname()[1]
        sockets.append(bound)
    if not sockets:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return sockets


def _reason(error: OSError) -> str:
    """Returns the system's message; a name that does not resolve has one of its own."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno)

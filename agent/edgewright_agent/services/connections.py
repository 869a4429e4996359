"""Decides which connections to the gRPC server may stay: those that call, and a few that have not called yet.

gRPC for Python accepts a connection, and spends a file handle on it, before anybody has shown a certificate. Its own
options limit how many there are and how long a handshake takes (`connection_options`). The rest is done from beside
it. The kernel keeps a connection that has sent nothing (TCP_DEFER_ACCEPT, tcp(7)). A guard closes those that make no
call in time, too many from one address, and the oldest of them before a deployer would find no place. It closes a
connection with shutdown(2) on a second handle, which gRPC sees as the end of the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from edgewright_agent.services.callers import ClientCertificate, Context, certificate_of
from edgewright_agent.services.roles import CallerRole

HANDSHAKE_SECONDS = 10.0  # from the first byte to the end of the handshake, and to the first call
SILENT_SECONDS = 60  # so long the kernel keeps a connection that has sent nothing
CONNECTING_SECONDS = 1.0  # so long nobody counts how many come from one address: a pool connects at once
SWEEP_SECONDS = 1.0
CROWDED_SWEEP_SECONDS = 0.1
IDLE_SECONDS = 900  # without a call; clients connect again by themselves
KEEPALIVE_SECONDS = 60

Peer = tuple[str, int]  # address and port
_Answer = TypeVar("_Answer")


def connection_options(connections_max: int) -> tuple[tuple[str, int], ...]:
    """Returns gRPC's own limits on connections (include/grpc/impl/channel_arg_names.h)."""
    return (
        ("grpc.max_allowed_incoming_connections", connections_max),
        ("grpc.server_handshake_timeout_ms", round(1000 * HANDSHAKE_SECONDS)),
        ("grpc.max_connection_idle_ms", 1000 * IDLE_SECONDS),
        ("grpc.keepalive_time_ms", 1000 * KEEPALIVE_SECONDS),
        ("grpc.keepalive_timeout_ms", 1000 * KEEPALIVE_SECONDS),
    )


@dataclass
class _Connection:
    since_seconds: float  # when it was seen first
    role: CallerRole | None = None  # None: it has not called yet
    certificate_sha256: str = ""


class ConnectionGuard:
    """Watches the accepted connections of one port of this process. Belongs to one event loop."""

    def __init__(
        self,
        port: int,
        connections_max: int,
        is_revoked: Callable[[str], bool] = lambda sha256: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`is_revoked` judges a certificate by its SHA-256. Open connections of a revoked one are closed."""
        self._port = port
        self._max = connections_max
        self._is_revoked = is_revoked
        self._clock = clock
        self._known: dict[Peer, _Connection] = {}

    def called(self, peer: str, certificate: ClientCertificate | None) -> None:
        """Notes that a call was let in over the connection of `peer`, as gRPC names it."""
        address = parse_peer(peer)
        if address is None:
            return
        is_deployer = certificate is None or CallerRole.DEPLOYER.value in certificate.roles
        role = CallerRole.DEPLOYER if is_deployer else CallerRole.OBSERVER
        connection = self._known.setdefault(address, _Connection(self._clock()))
        connection.role = role
        connection.certificate_sha256 = "" if certificate is None else certificate.sha256

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Sweeps at intervals until the context ends."""
        defer_accept(self._port)
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def sweep(self) -> int:
        """Closes what may not stay; returns how many connections there were."""
        handles, now = _accepted(self._port), self._clock()
        self._known = {peer: self._known.get(peer, _Connection(now)) for peer in handles}
        shown = ((peer, each.certificate_sha256) for peer, each in self._known.items())
        revoked = {peer for peer, sha256 in shown if sha256 and self._is_revoked(sha256)}
        for peer in revoked | surplus(self._known, self._max, now):
            _shut_down(handles[peer], peer)
        return len(handles)

    async def _run(self) -> None:
        while True:
            crowded = 2 * self.sweep() > self._max
            await asyncio.sleep(CROWDED_SWEEP_SECONDS if crowded else SWEEP_SECONDS)


def surplus(connections: Mapping[Peer, _Connection], connections_max: int, now_seconds: float) -> set[Peer]:
    """Returns the connections that may not stay, the oldest of each kind. Pure.

    A quarter of all places stays free of connections that have not called, and half of them of observers'.
    """
    uncalled = _oldest_first(connections, None)
    ages = {peer: now_seconds - connections[peer].since_seconds for peer in uncalled}
    closing = {peer for peer in uncalled if ages[peer] > HANDSHAKE_SECONDS}
    for host in {host for host, _ in uncalled}:
        waiting = [peer for peer in uncalled if peer[0] == host and ages[peer] > CONNECTING_SECONDS]
        closing |= set(waiting[: max(0, len(waiting) - max(1, connections_max // 8))])
    left = [peer for peer in uncalled if peer not in closing]
    crowd = len(connections) - len(closing) - (connections_max - max(1, connections_max // 4))
    closing |= set(left[: max(0, crowd)])
    observing = _oldest_first(connections, CallerRole.OBSERVER)
    return closing | set(observing[max(1, connections_max // 2) :])


def parse_peer(peer: str) -> Peer | None:
    """Returns address and port of gRPC's `ipv4:127.0.0.1:50` or `ipv6:%5B::1%5D:50`; None for a Unix socket."""
    kind, _, rest = peer.partition(":")
    host, _, port = rest.replace("%5B", "[").replace("%5D", "]").rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    return _plain(host.strip("[]")), int(port)


def client_of(context: Context) -> str:
    """Returns who calls, to give each caller its share: a certificate, or an address where there is none."""
    certificate = certificate_of(context.auth_context())
    if certificate is not None:
        return f"certificate {certificate.sha256}"
    peer = parse_peer(context.peer())
    return "unix" if peer is None else peer[0]


def defer_accept(port: int) -> None:
    """Has the kernel keep connections to our listening socket until they send something."""

    def defer(handle: socket.socket) -> None:
        if handle.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and _port(handle) == port:
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, SILENT_SECONDS)

    for number in _socket_numbers():
        _on_tcp(number, defer)


def _oldest_first(connections: Mapping[Peer, _Connection], role: CallerRole | None) -> list[Peer]:
    peers = [peer for peer, connection in connections.items() if connection.role is role]
    return sorted(peers, key=lambda peer: connections[peer].since_seconds)


def _accepted(port: int) -> dict[Peer, int]:
    """Returns the file handles of the port's accepted connections, by who is at the other end."""

    def peer_of(handle: socket.socket) -> Peer | None:
        return _peer(handle) if _port(handle) == port else None

    peers = {number: _on_tcp(number, peer_of) for number in _socket_numbers()}
    return {peer: number for number, peer in peers.items() if peer is not None}


def _shut_down(number: int, peer: Peer) -> None:
    """Ends the connection, if the handle is still that of this peer."""

    def shut_down(handle: socket.socket) -> None:
        if _peer(handle) == peer:
            handle.shutdown(socket.SHUT_RDWR)

    _on_tcp(number, shut_down)


def _socket_numbers() -> list[int]:
    numbers = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, no paths
        with contextlib.suppress(OSError):  # closed meanwhile
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                numbers.append(int(name))
    return numbers


def _on_tcp(number: int, question: Callable[[socket.socket], _Answer]) -> _Answer | None:
    """Asks a TCP socket of gRPC's on a second handle, which can't become another file's meanwhile.

    Returns None where the system refuses: the connection has ended, listens, is no TCP, or no handle is left.
    """
    with contextlib.suppress(OSError), os.fdopen(os.dup(number), "rb", buffering=0) as second:
        handle = socket.socket(fileno=second.fileno())
        try:
            if handle.family in (socket.AF_INET, socket.AF_INET6) and handle.type == socket.SOCK_STREAM:
                return question(handle)
        finally:
            handle.detach()
    return None


def _peer(handle: socket.socket) -> Peer:
    host, port, *_ = handle.getpeername()
    return _plain(host), int(port)


def _port(handle: socket.socket) -> int:
    return int(handle.getsockname()[1])


def _plain(host: str) -> str:
    """Returns an IPv4 address as such, also where a socket for both families has it."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)

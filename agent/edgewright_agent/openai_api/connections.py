"""How many connections there may be, in all and from one peer, and which one is closed to make room for a new one.

A connection that asks nothing costs a client nothing, but the board a file handle. So where the limit is reached, the
oldest idle connection gives its place to the new one: silent clients can't keep others out.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def peer_max(total: int) -> int:
    """Returns how many of `total` connections one peer may hold."""
    return max(1, total // 2)


def peer_of(address: Any) -> str:
    """Returns who connects from a socket's address: an IPv4 address, an IPv6 network of 64 bits, or this machine."""
    if not isinstance(address, tuple):
        return "unix"
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is None:
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


@dataclass(frozen=True, eq=False)
class Connection:
    """One connection. `is_idle`: nothing is lost if it is closed, which `close` does at once."""

    peer: str
    is_idle: Callable[[], bool]
    close: Callable[[], None]


class Connections:
    """The open connections, oldest first."""

    def __init__(self, total: int, of_one_peer: int) -> None:
        self._total = total
        self._of_one_peer = of_one_peer
        self._open: dict[Connection, None] = {}

    def admit(self, connection: Connection) -> bool:
        """Adds a connection; where that needs room, closes an idle one. Returns False if there is none to close."""
        counts = Counter(other.peer for other in self._open)
        if counts[connection.peer] >= self._of_one_peer:
            crowded = connection.peer
        elif len(self._open) >= self._total:
            crowded = counts.most_common(1)[0][0]
        else:
            self._open[connection] = None
            return True
        idle = next((other for other in self._open if other.peer == crowded and other.is_idle()), None)
        if idle is None:
            return False
        self.remove(idle)
        idle.close()
        self._open[connection] = None
        return True

    def remove(self, connection: Connection) -> None:
        """Forgets a connection that is closed."""
        self._open.pop(connection, None)

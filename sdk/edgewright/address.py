"""Addresses that the agent listens on."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from dataclasses import dataclass

from edgewright.errors import InputError


@dataclass(frozen=True)
class Address:
    """A host and a port, written HOST:PORT; an IPv6 host stands in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def canonical(self) -> Address:
        """Returns the one way to write it: a name in small letters without its last dot, a number at its shortest."""
        host = self.host.lower().removesuffix(".")
        with suppress(ValueError):  # a name is no number
            host = str(ipaddress.ip_address(host))
        return Address(host, self.port)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        host = self.canonical.host
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """Returns the address in HOST:PORT. Raises InputError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"{text!r} is not an address; give HOST:PORT, for instance 0.0.0.0:7443.")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


def require_bindable(address: Address) -> None:
    """Raises InputError if the port is in use or the host is not this machine's.

    gRPC would say the same in its log, in more words, and not say which of the two it was.
    """
    try:
        family, kind, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        message = f"{address} can't be listened on: {error.strerror}. Choose another --listen."
        raise InputError(message) from None

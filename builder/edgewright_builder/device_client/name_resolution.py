"""The addresses of a host, as this machine's own resolver knows them: /etc/hosts, DNS, mDNS; so `ping` finds them too.

gRPC's resolver asks DNS servers only, and finds no `board.local` (https://github.com/grpc/grpc/issues/34709).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import threading
import urllib.request

from edgewright.address import Address
from edgewright_builder.device_client.failures import LinkError

RESOLVE_SECONDS = 15.0  # the system's resolver gives up after 10 s where a DNS server is silent
# Those that gRPC obeys; the first that is set counts.
PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
NO_PROXY_VARIABLES = ("no_grpc_proxy", "no_proxy")


async def numeric_target(address: Address) -> str | None:
    """Returns gRPC's target with every address of the host, in the system's order of preference.

    None if there is nothing to look up here: the host is an IP address, or a proxy looks it up.
    Raises LinkError if the host has no address, or the resolver does not answer in time.
    """
    if _is_numeric(address.host) or (_is_proxied(address.host) and not address.is_loopback):
        return None
    try:
        addresses = await _look_up(address)
    except (OSError, UnicodeError) as error:
        raise LinkError(_unknown(address, error)) from None
    if all(family == socket.AF_INET for family, _ in addresses):
        return "ipv4:" + ",".join(f"{host}:{address.port}" for _, host in addresses)
    # A target has one family; IPv4 has its place within IPv6 (RFC 4291, section 2.5.5.2).
    hosts = [host if family == socket.AF_INET6 else f"::ffff:{host}" for family, host in addresses]
    return "ipv6:" + ",".join(f"[{host}]:{address.port}" for host in hosts)


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_proxied(host: str) -> bool:
    exceptions = _first_set(NO_PROXY_VARIABLES)
    return bool(_first_set(PROXY_VARIABLES)) and not urllib.request.proxy_bypass(host, {"no": exceptions})


def _first_set(variables: tuple[str, ...]) -> str:
    return next(filter(None, map(os.environ.get, variables)), "")


async def _look_up(address: Address) -> list[tuple[socket.AddressFamily, str]]:
    """Returns the family and the numeric form of each address. Raises OSError, and UnicodeError for what is no name."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[tuple[socket.AddressFamily, str]]] = loop.create_future()

    def settle(addresses: list[tuple[socket.AddressFamily, str]], error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(addresses)

    def ask() -> None:
        addresses, problem = [], None
        try:
            addresses = _system_addresses(address)
        except (OSError, UnicodeError) as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop was closed while the resolver took its time
            loop.call_soon_threadsafe(settle, addresses, problem)

    # A thread of asyncio's pool would keep the process alive until the resolver gives up.
    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        done, _ = await asyncio.wait({answer}, timeout=RESOLVE_SECONDS)
    finally:
        answer.cancel()  # does nothing to one that is here; one that comes later is nobody's
    if not done:
        raise TimeoutError(None, f"Its name was not resolved within {RESOLVE_SECONDS:.0f} s")
    return answer.result()


def _system_addresses(address: Address) -> list[tuple[socket.AddressFamily, str]]:
    answers = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    known = (socket.AF_INET, socket.AF_INET6)
    addresses = [(family, _numeric(where)) for family, _, _, _, where in answers if family in known]
    if not addresses:
        raise OSError(None, "No address of IPv4 or IPv6")
    return list(dict.fromkeys(addresses))


def _numeric(where: tuple[str | int, ...] | tuple[int, bytes]) -> str:
    """Returns the address; one of a single link, as mDNS gives, needs the number of its network card."""
    host = str(where[0]).partition("%")[0]
    return f"{host}%25{where[3]}" if len(where) == 4 and where[3] else host


def _unknown(address: Address, error: Exception) -> str:
    why = (error.strerror if isinstance(error, OSError) else None) or "Not a host name"
    return (
        f"No agent can be reached at {address} ({why}): check the name with `ping {address.host}` and that the board "
        "is on, or give an IP address that its certificate has."
    )

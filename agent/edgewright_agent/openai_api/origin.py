"""A door without a key is for the programs of this machine, and not for the web pages its browsers show.

A page can send requests to the loopback address, by its own scripts or under a name that it makes point there (DNS
rebinding); browsers say in `Origin` and `Host` which page that is.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlsplit

from edgewright.address import Address
from edgewright_agent.openai_api.errors import DoorError
from edgewright_agent.openai_api.requests import Scope, header


def check_neighbour(scope: Scope) -> None:
    """Raises DoorError (403) for a request to another name than this machine's, or from a page of another one."""
    host, origin = header(scope, b"host"), header(scope, b"origin")
    if host is not None and not _is_loopback(f"//{host.decode('latin-1')}"):
        raise _refused(f"was sent to {host.decode('latin-1')[:100]!r}")
    if origin is not None and not _is_loopback(origin.decode("latin-1")):
        raise _refused(f"comes from a page of {origin.decode('latin-1')[:100]!r}")


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return False
    return host is not None and Address(host, 0).is_loopback


def _refused(what: str) -> DoorError:
    message = f"The request {what}; without a key this door answers to 127.0.0.1, [::1] and localhost only."
    return DoorError(HTTPStatus.FORBIDDEN, "forbidden", message, close=True)

"""Who may call: clients with the API key, or, where none is set, programs of this machine but no foreign web pages.

A web page can send requests to the loopback address, from its own scripts or under a host name that it makes point
there (DNS rebinding). Browsers say in `Origin`, `Host` and `Sec-Fetch-Site` which page that is.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus
from urllib.parse import urlsplit

from edgewright.address import Address
from edgewright_agent.openai_api.http.asgi import Scope, header
from edgewright_agent.openai_api.http.errors import ApiError


def check_key(scope: Scope, key: str | None) -> None:
    """Raises ApiError (401) if a key is set and the request does not bring it."""
    if key is None:
        return
    scheme, _, sent = (header(scope, b"authorization") or b"").partition(b" ")
    if scheme.lower() != b"bearer" or not hmac.compare_digest(sent.strip(), key.encode()):
        message = "The API key is missing or wrong; send `Authorization: Bearer KEY`."
        raise ApiError(
            HTTPStatus.UNAUTHORIZED, "invalid_api_key", message, headers={"www-authenticate": "Bearer"}
        )


def check_origin(scope: Scope) -> None:
    """Raises ApiError (403) if the request names another host than this machine, or a page of another host sent it."""
    host, origin = header(scope, b"host"), header(scope, b"origin")
    site = header(scope, b"sec-fetch-site")
    if host is not None and not _is_loopback(f"//{host.decode('latin-1')}"):
        raise _forbidden(f"was sent to {host.decode('latin-1')[:100]!r}")
    if origin is not None and not _is_loopback(origin.decode("latin-1")):
        raise _forbidden(f"comes from a page of {origin.decode('latin-1')[:100]!r}")
    if origin is None and site == b"cross-site":
        raise _forbidden("comes from a page of another site")


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return False
    return host is not None and Address(host, 0).is_loopback


def _forbidden(what: str) -> ApiError:
    message = f"The request {what}; without an API key only 127.0.0.1, [::1] and localhost are answered."
    return ApiError(HTTPStatus.FORBIDDEN, "forbidden", message, close=True)

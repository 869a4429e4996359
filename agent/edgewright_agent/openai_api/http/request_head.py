"""Judges a request's head as a whole: its size, and that no two programs could read it in two ways (RFC 9112).

The parser (llhttp) has refused malformed lines by then. It lets through what is ambiguous only between programs, such
as two Host fields, of which a proxy may check one and the server behind it use the other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from edgewright.sizes import format_bytes
from edgewright_agent.openai_api.http.errors import ApiError

HEAD_BYTES_MAX = 32 * 1024
FIELDS_MAX = 100  # as in other servers; browsers and clients send about 20

Fields = Sequence[tuple[bytes, bytes]]  # names in lower case

_ONCE = (
    b"host",
    b"origin",
    b"authorization",
    b"content-length",
    b"transfer-encoding",
    b"content-type",
    b"expect",
)
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
_HTTP2_OFFER = (b"upgrade", b"http2-settings")


@dataclass(frozen=True)
class RequestHead:
    """A request line and the fields behind it."""

    method: bytes
    target: bytes
    version: str  # "1.1"
    fields: Fields

    @property
    def size_bytes(self) -> int:
        """Returns the size as sent, less optional white space."""
        line_bytes = len(self.method) + len(self.target) + len(" HTTP/1.1\r\n")
        return line_bytes + sum(len(name) + len(value) + len(": \r\n") for name, value in self.fields)


def check_head(head: RequestHead) -> None:
    """Raises ApiError: 431 for a head that is too large, 505 for another version, 415, 400 if ambiguous."""
    if head.size_bytes > HEAD_BYTES_MAX or len(head.fields) > FIELDS_MAX:
        raise too_large()
    if head.version not in ("1.1", "1.0"):
        message = f"HTTP/{head.version} is not spoken here; use HTTP/1.1."
        raise ApiError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "http_version", message, close=True)
    if not head.target.startswith(b"/"):
        raise _ambiguous(
            f"The request's target must be a path such as /v1/models, not {_shown(head.target)}."
        )
    counts = Counter(name for name, _ in head.fields)
    repeated = [name for name in _ONCE if counts[name] > 1]
    if repeated:
        raise _ambiguous(
            f"The header {repeated[0].decode()} must be sent once, not {counts[repeated[0]]} times."
        )
    _check_host(head)
    _check_framing(head, counts)
    _check_encoding(head)


def too_large() -> ApiError:
    """Returns the error of a head beyond the limits."""
    message = f"The request's head has over {format_bytes(HEAD_BYTES_MAX)} or over {FIELDS_MAX} fields."
    return ApiError(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request_header_fields_too_large", message, close=True
    )


def without_upgrade(head: RequestHead) -> bytes:
    """Returns the head as bytes without its offer to upgrade to another protocol, which a server may ignore."""
    kept = [(name, _without_offer(name, value)) for name, value in head.fields if name not in _HTTP2_OFFER]
    lines = [b"%b %b HTTP/1.1" % (head.method, head.target), *(b"%b: %b" % field for field in kept)]
    return b"\r\n".join([*lines, b"", b""])


def _without_offer(name: bytes, value: bytes) -> bytes:
    if name != b"connection":
        return value
    options = [option.strip() for option in value.split(b",")]
    return b", ".join(option for option in options if option.lower() not in _HTTP2_OFFER)


def _check_host(head: RequestHead) -> None:
    host = next((value for name, value in head.fields if name == b"host"), None)
    if host is None and head.version == "1.1":
        raise _ambiguous("A request of HTTP/1.1 needs the header Host.")
    if host is not None and not _HOST.fullmatch(host):
        raise _ambiguous(
            f"The header Host must be a name or an address, with or without a port, not {_shown(host)}."
        )


def _check_framing(head: RequestHead, counts: Counter[bytes]) -> None:
    """Raises ApiError if it is unclear where the body ends."""
    coding = next((value for name, value in head.fields if name == b"transfer-encoding"), None)
    if coding is None:
        return
    if coding.strip().lower() != b"chunked" or head.version != "1.1" or counts[b"content-length"]:
        raise _ambiguous(
            "A body is sent with Content-Length, or, in HTTP/1.1, with `Transfer-Encoding: chunked` alone; "
            f"not with {_shown(coding)} in HTTP/{head.version}."
        )


def _check_encoding(head: RequestHead) -> None:
    """Raises ApiError (415) for a compressed body: what it takes would be known only once it is taken."""
    for name, value in head.fields:
        if name == b"content-encoding" and value.strip().lower() != b"identity":
            message = f"A body is sent as it is, without Content-Encoding, not with {_shown(value)}."
            raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message, close=True)


def _ambiguous(message: str) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, "invalid_request", message, close=True)


def _shown(value: bytes) -> str:
    return repr(value[:100].decode("latin-1"))

"""Gets one range of one blob over HTTP, from a server that may be broken, slow or hostile.

Whatever it sends, no more is read than was asked for, nothing is decompressed, no redirect leaves https, and silence
or a trickle ends the request. The digests decide what the bytes are worth.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import httpx

from edgewright.errors import OutsideError
from edgewright_agent.runtime.threads import within

TOKEN_BYTES_MAX = 64 * 1024

_Result = TypeVar("_Result")


class MirrorError(OutsideError):
    """This mirror does not have the blob, or not in a form that can be used."""


class BrokenOffError(MirrorError):
    """The connection failed; what arrived before counts, and going on may help."""


@dataclass(frozen=True)
class MirrorLimits:
    """How long a mirror is waited for, and how slow it may be."""

    connect_seconds: float = 10.0
    silence_seconds: float = 20.0  # between two pieces
    window_seconds: float = 30.0  # over which the rate must hold
    bytes_per_second_min: int = 2048  # a cellular link in the woods
    redirects_max: int = 3
    attempts_max: int = 4  # in a row without one new chunk


@dataclass(frozen=True)
class BlobRange:
    """A response body that begins at byte `first` of the blob."""

    first: int
    pieces: AsyncIterator[bytes]


def open_client(limits: MirrorLimits) -> httpx.AsyncClient:
    """Returns a client for mirrors. Proxies and certificates are the environment's (HTTPS_PROXY, SSL_CERT_FILE).

    Raises MirrorError where httpx can't use them.
    """
    try:
        return httpx.AsyncClient(
            timeout=httpx.Timeout(limits.silence_seconds, connect=limits.connect_seconds),
            headers={"Accept-Encoding": "identity", "User-Agent": "edgewright-agent"},
        )
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        raise MirrorError(
            f"No mirror can be asked with the agent's HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY and SSL_CERT_FILE: "
            f"{_brief(error)}. Correct them in the agent's environment."
        ) from None


@contextlib.asynccontextmanager
async def get_range(
    client: httpx.AsyncClient, url: str, first: int, end: int, blob_bytes: int, limits: MirrorLimits
) -> AsyncIterator[BlobRange]:
    """Gets bytes `first` to `end` (exclusive) of the blob at `url`, which has `blob_bytes`.

    A server that knows no ranges answers with the whole blob: then the range begins at 0. Raises MirrorError,
    BrokenOffError.
    """
    headers = {"Range": f"bytes={first}-{end - 1}"}
    with _http_errors(url):
        response = await _send(client, client.build_request("GET", url, headers=headers), limits)
        try:
            if response.status_code == httpx.codes.UNAUTHORIZED:
                await response.aclose()
                headers["Authorization"] = f"Bearer {await _anonymous_token(client, response, limits)}"
                response = await _send(client, client.build_request("GET", url, headers=headers), limits)
            begin = _check(response, first, end, blob_bytes)
            yield BlobRange(begin, _paced(response, limits))
        finally:
            await response.aclose()


async def _send(client: httpx.AsyncClient, request: httpx.Request, limits: MirrorLimits) -> httpx.Response:
    """Sends a request. Follows redirects by hand: httpx would read their bodies to an end that may never come."""
    for _ in range(limits.redirects_max + 1):
        response = await _in_time(client.send(request, stream=True), request.url, limits)
        if response.next_request is None:
            return response
        await response.aclose()
        if request.url.scheme == "https" != response.next_request.url.scheme:
            raise MirrorError(f"{request.url} redirects to {response.next_request.url}, which is not https.")
        request = response.next_request
    raise MirrorError(f"{request.url} is the end of more than {limits.redirects_max} redirects.")


async def _in_time(work: Awaitable[_Result], url: httpx.URL, limits: MirrorLimits) -> _Result:
    """Bounds the time for a head or a token. httpx's own limit of silence begins anew with each byte."""
    seconds = limits.connect_seconds + limits.silence_seconds
    try:
        return await within(seconds, work)
    except asyncio.TimeoutError:
        raise BrokenOffError(f"{url} has not answered within {seconds:g} s.") from None


def _check(response: httpx.Response, first: int, end: int, blob_bytes: int) -> int:
    """Returns where the body begins. Refuses one that can't be the range before a byte of it is read."""
    url, status = response.url, response.status_code
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise MirrorError(f"{url} sends {encoding}, though it was asked for the bytes as they are.")
    if status == httpx.codes.PARTIAL_CONTENT:
        found = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", found)
        if match is None or (int(match[1]), int(match[2]) + 1) != (first, end):
            raise MirrorError(f"{url} was asked for bytes {first} to {end - 1} and sends {found!r}.")
        if match[3] not in ("*", str(blob_bytes)):
            raise MirrorError(f"{url} holds {match[3]} bytes; the manifest says {blob_bytes}.")
        begin, expected = first, end - first
    elif status == httpx.codes.OK:
        begin, expected = 0, blob_bytes
    elif status >= 500 or status == httpx.codes.TOO_MANY_REQUESTS:
        raise BrokenOffError(f"{url} answers {status} {response.reason_phrase}.")
    else:
        raise MirrorError(f"{url} answers {status} {response.reason_phrase}.")
    length = response.headers.get("Content-Length")
    if length is not None and length != str(expected):
        raise MirrorError(f"{url} announces {length[:20]} bytes; {expected} are expected.")
    return begin


async def _paced(response: httpx.Response, limits: MirrorLimits) -> AsyncIterator[bytes]:
    """Yields the body piece by piece while it comes fast enough. What the caller does with a piece takes no time."""
    seconds, received, began = 0.0, 0, time.monotonic()
    async for piece in response.aiter_raw():  # as it comes: httpx would keep a part of a piece to itself
        received += len(piece)
        seconds += time.monotonic() - began
        if seconds >= limits.window_seconds:
            if received < seconds * limits.bytes_per_second_min:
                rate = received / seconds
                raise MirrorError(
                    f"{response.url} sends {rate:.0f} bytes/s; {limits.bytes_per_second_min} are the least."
                )
            seconds, received = 0.0, 0
        yield piece
        began = time.monotonic()


async def _anonymous_token(client: httpx.AsyncClient, refused: httpx.Response, limits: MirrorLimits) -> str:
    """Returns a token for anybody, as public OCI registries want it.

    https://distribution.github.io/distribution/spec/auth/token/
    """
    challenge = refused.headers.get("WWW-Authenticate", "")
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.get("realm", "")
    if not challenge.lower().startswith("bearer ") or not realm:
        raise MirrorError(f"{refused.url} wants a login, and mirrors are read without one; make it public.")
    if refused.url.scheme == "https" and not realm.startswith("https://"):
        raise MirrorError(f"{refused.url} sends for a token to {realm!r}, which is not https.")
    query = {name: fields[name] for name in ("service", "scope") if name in fields}
    response = await _send(client, client.build_request("GET", realm, params=query), limits)
    try:
        body = await _in_time(_small_body(response), response.url, limits)
    finally:
        await response.aclose()
    try:
        answer = json.loads(body)
        token = str(answer.get("token") or answer["access_token"])
    except (ValueError, KeyError, AttributeError, RecursionError):
        raise MirrorError(f"{realm} gives no token ({response.status_code}).") from None
    if not re.fullmatch(r"[\x21-\x7e]{1,16384}", token):
        raise MirrorError(f"{realm} gives a token that is none.")
    return token


async def _small_body(response: httpx.Response) -> bytes:
    body = b""
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > TOKEN_BYTES_MAX:
            raise MirrorError(f"{response.url} sends more than {TOKEN_BYTES_MAX} bytes for a token.")
    return body


@contextlib.contextmanager
def _http_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx.TransportError, httpx.StreamError) as error:
        raise BrokenOffError(f"{url} broke off: {_brief(error)}.") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise MirrorError(f"{url} can't be read: {_brief(error)}.") from None


def _brief(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__

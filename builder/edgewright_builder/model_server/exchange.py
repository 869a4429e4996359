"""One question to a model's server and its answer, bounded in time and size whatever the server sends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from edgewright.errors import OutsideError
from edgewright.sizes import format_bytes
from edgewright_builder.model_server.requests import excerpt
from edgewright_builder.model_server.retries import AGAIN, PassingFaultError


@dataclass(frozen=True)
class AnswerBounds:
    """What one answer may take."""

    server: str  # as errors name it, such as "T1 at http://HOST:8000/v1"
    seconds: float  # until it is whole
    size_bytes: int


@dataclass(frozen=True)
class HttpAnswer:
    """What came back."""

    status: int
    headers: httpx.Headers
    data: bytes

    def fault(self, key: str) -> str:
        """Returns the answer as a fault in words; `key` is the recipe's for the address, where a redirect leads on."""
        place = self.headers.get("location")
        where = "" if place is None else f" to {place}; write that place's address into `{key}`"
        return f"HTTP {self.status}{where}: {excerpt(self.data)}"


async def post(
    http: httpx.AsyncClient, url: str, body: Mapping[str, Any], bounds: AnswerBounds
) -> HttpAnswer:
    """Returns the answer. Raises PassingFaultError for one that is late, OutsideError for one beyond its size."""
    return await _in_time(_exchange(http, http.build_request("POST", url, json=body), bounds), bounds)


async def get(http: httpx.AsyncClient, url: str, bounds: AnswerBounds) -> HttpAnswer:
    """Returns the answer. Raises as `post`."""
    return await _in_time(_exchange(http, http.build_request("GET", url), bounds), bounds)


async def _in_time(exchange: Any, bounds: AnswerBounds) -> HttpAnswer:
    try:
        async with asyncio.timeout(bounds.seconds):
            answer: HttpAnswer = await exchange
            return answer
    except (TimeoutError, httpx.TimeoutException):
        raise PassingFaultError(f"no whole answer within {bounds.seconds:g} s") from None


async def _exchange(http: httpx.AsyncClient, request: httpx.Request, bounds: AnswerBounds) -> HttpAnswer:
    response = await http.send(request, stream=True)
    try:
        data = bytearray()
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > bounds.size_bytes:
                raise OutsideError(
                    f"{bounds.server} sent more than {format_bytes(bounds.size_bytes)} for one answer; check what "
                    f"serves there. {AGAIN}"
                )
        return HttpAnswer(response.status_code, response.headers, bytes(data))
    finally:
        await response.aclose()

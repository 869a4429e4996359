"""Errors as OpenAI's clients know them: a status, and a JSON object with message, type and code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from edgewright.errors import BusyError, EdgewrightError, InputError
from edgewright.v1.common_pb2 import Reason

_STATUS_AND_CODE = {
    Reason.REASON_OVERLOADED: (HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_exceeded"),
    Reason.REASON_NO_ACTIVE_RELEASE: (HTTPStatus.SERVICE_UNAVAILABLE, "no_active_release"),
    Reason.REASON_ENGINE_STARTING: (HTTPStatus.SERVICE_UNAVAILABLE, "engine_starting"),
    Reason.REASON_ENGINE_FAILED: (HTTPStatus.SERVICE_UNAVAILABLE, "engine_failed"),
    Reason.REASON_CONTEXT_EXCEEDED: (HTTPStatus.BAD_REQUEST, "context_length_exceeded"),
}
RETRY_SECONDS = 1  # how soon an engine that is being restarted may answer


class ApiError(Exception):
    """An error that the client gets as the answer to its request.

    With `close`, the connection is closed after it: what else comes is not worth reading.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.headers = {**(headers or {}), **({"connection": "close"} if close else {})}

    @property
    def body(self) -> bytes:
        """The error in OpenAI's shape."""
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            kind = "requests"
        else:
            kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": None, "code": self.code}
        return json.dumps({"error": error}).encode()

    @property
    def response(self) -> bytes:
        """The whole HTTP response, for where no ASGI application has been asked yet."""
        fields = {"content-type": "application/json", "content-length": len(self.body), **self.headers}
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            *(f"{k}: {v}" for k, v in fields.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def to_api_error(error: EdgewrightError) -> ApiError:
    """Returns the answer that stands for one of our own errors."""
    fallback = (
        (HTTPStatus.BAD_REQUEST, "invalid_value")
        if isinstance(error, InputError)
        else (HTTPStatus.INTERNAL_SERVER_ERROR, "server_error")
    )
    status, code = _STATUS_AND_CODE.get(error.reason, fallback)
    headers = {}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        seconds = error.retry_seconds if isinstance(error, BusyError) else RETRY_SECONDS
        headers["retry-after"] = str(seconds)
    return ApiError(status, code, str(error), headers=headers)

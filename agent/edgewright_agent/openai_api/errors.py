"""Errors as OpenAI's clients know them: a status, and a JSON object with message, type and code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from edgewright.errors import BusyError, EdgewrightError, InputError
from edgewright.v1.common_pb2 import Reason

_ANSWERS = {
    Reason.REASON_OVERLOADED: (HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_exceeded"),
    Reason.REASON_NO_ACTIVE_RELEASE: (HTTPStatus.SERVICE_UNAVAILABLE, "no_active_release"),
    Reason.REASON_ENGINE_FAILED: (HTTPStatus.SERVICE_UNAVAILABLE, "engine_failed"),
    Reason.REASON_CONTEXT_EXCEEDED: (HTTPStatus.BAD_REQUEST, "context_length_exceeded"),
}
RETRY_SECONDS = 1  # of an engine that is being restarted


class DoorError(Exception):
    """A request that gets this answer. `close`: what else comes on its connection is not worth reading."""

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
        """OpenAI's shape of an error."""
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            kind = "requests"
        else:
            kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": None, "code": self.code}
        return json.dumps({"error": error}).encode()


def refusal_of(error: EdgewrightError) -> DoorError:
    """The answer to one of our own errors."""
    fallback = (
        (HTTPStatus.BAD_REQUEST, "invalid_value")
        if isinstance(error, InputError)
        else (HTTPStatus.INTERNAL_SERVER_ERROR, "server_error")
    )
    status, code = _ANSWERS.get(error.reason, fallback)
    headers = {}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        seconds = error.retry_seconds if isinstance(error, BusyError) else RETRY_SECONDS
        headers["retry-after"] = str(seconds)
    return DoorError(status, code, str(error), headers=headers)

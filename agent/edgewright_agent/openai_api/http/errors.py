"""Errors as OpenAI's clients know them: a status, and a JSON object with message, type and code."""

from __future__ import annotations

import json
import logging
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
logger = logging.getLogger(__name__)

MESSAGE_CHARS_MAX = 500  # of an engine's text
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
        param: str | None = None,
    ) -> None:
        """`param` names the field of the request that is wrong."""
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers = {**(headers or {}), **({"connection": "close"} if close else {})}

    @property
    def body(self) -> bytes:
        """The error in OpenAI's shape."""
        return _error_body(self.status, str(self), self.code, self.param)

    @property
    def response(self) -> bytes:
        """The whole HTTP response, for where no ASGI application has been asked yet."""
        fields = {"content-type": "application/json", "content-length": len(self.body), **self.headers}
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            *(f"{k}: {v}" for k, v in fields.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def engine_error(status: int, body: bytes) -> bytes:
    """Returns the body of an engine's error as OpenAI's clients know it: unchanged if it is so already.

    Servers below the engine's own code answer in plain text or in other JSON, for instance when a request crashes.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    fields = answer if isinstance(answer, dict) else {}
    error = fields.get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return body
    told = error or fields.get("message") or fields.get("detail") or body.decode(errors="replace")
    text = told if isinstance(told, str) else json.dumps(told)
    message = f"The engine answered {status}: {text.strip()[:MESSAGE_CHARS_MAX] or 'nothing more'}."
    code = "engine_failed" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_value"
    return _error_body(status, message, code)


def to_api_error(error: Exception) -> ApiError:
    """Returns the answer that stands for any error; one that nobody foresaw is logged."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EdgewrightError):
        return _foreseen(error)
    logger.error("A request failed for an unforeseen reason.", exc_info=error)
    message = "The agent failed on this request; its log says why."
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "server_error", message)


def _foreseen(error: EdgewrightError) -> ApiError:
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


def _error_body(status: int, message: str, code: str, param: str | None = None) -> bytes:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = "requests"
    else:
        kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}).encode()

"""uvicorn's HTTP protocol with the limits it lacks: on heads, time, clients that do not read, and connections.

uvicorn has no options for these limits; its protocol class is the place to set them (`Config(http=…)`).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgewright_agent.openai_api.body import BODY_BYTES_MAX
from edgewright_agent.openai_api.errors import ApiError

HEAD_BYTES_MAX = 32 * 1024
MESSAGE_BYTES_MAX = HEAD_BYTES_MAX + 2 * BODY_BYTES_MAX  # as sent: chunks have heads, and trailers may follow
HEAD_SECONDS = 10.0  # from the connection or the last answer to a whole head
STALL_SECONDS = 30.0  # a client that reads nothing for so long is gone
CONNECTIONS_MAX = 128


class BoundedProtocol(HttpToolsProtocol):
    """One connection of a client."""

    _message_bytes = 0  # of the message that is being read, its chunks' heads included
    _in_body = False  # the message's head is complete, its body is not
    _ignores_input = False  # whatever else comes is dropped
    _deadline: asyncio.TimerHandle | None = None
    _unread_bytes = 0  # by the client, when the deadline was set

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Overrides asyncio's callback."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            self._reject(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"There are {CONNECTIONS_MAX} connections already; try again later.",
            )
        else:
            self._set_deadline(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Overrides asyncio's callback."""
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Overrides asyncio's callback."""
        if self._ignores_input:
            return
        self._message_bytes += len(data)
        super().data_received(data)
        if self._in_body and self._message_bytes > MESSAGE_BYTES_MAX:
            self._reject(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {MESSAGE_BYTES_MAX} bytes are read.")
        elif not self._in_body and self._message_bytes > HEAD_BYTES_MAX:
            message = f"The request's head has over {HEAD_BYTES_MAX} bytes."
            self._reject(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)

    def on_headers_complete(self) -> None:
        """Overrides httptools' callback."""
        if not self.flow.write_paused:
            self._clear_deadline()
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Overrides httptools' callback."""
        self._in_body, self._message_bytes = False, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Overrides uvicorn's callback."""
        super().on_response_complete()
        if self._all_answered and not self.flow.write_paused:
            self._set_deadline(HEAD_SECONDS)

    def pause_writing(self) -> None:
        """Overrides asyncio's callback: the client does not read."""
        super().pause_writing()
        self._set_deadline(STALL_SECONDS)

    def resume_writing(self) -> None:
        """Overrides asyncio's callback."""
        super().resume_writing()
        if self._all_answered:
            self._set_deadline(HEAD_SECONDS)
        else:
            self._clear_deadline()

    def send_400_response(self, msg: str) -> None:
        """Overrides uvicorn's callback: what came is no HTTP."""
        self._reject(HTTPStatus.BAD_REQUEST, "This is no HTTP request.")

    def _set_deadline(self, seconds: float) -> None:
        self._clear_deadline()
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._deadline = self.loop.call_later(seconds, self._on_deadline)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self) -> None:
        unread_bytes = self.transport.get_write_buffer_size()
        if unread_bytes and unread_bytes < self._unread_bytes:
            self._set_deadline(STALL_SECONDS)  # slow, but reading
        elif unread_bytes:
            self.transport.abort()
        elif self._message_bytes:
            self._reject(HTTPStatus.REQUEST_TIMEOUT, f"No whole head came within {HEAD_SECONDS:g} s.")
        else:
            self.transport.close()

    def _reject(self, status: HTTPStatus, message: str) -> None:
        """Sends an error and closes; where an earlier request is under way, it is answered and this one is not."""
        self._ignores_input = True
        if self.transport.is_closing():
            return
        if self._answers_another:
            self.cycle.keep_alive = False
            return
        body = ApiError(status, status.name.lower(), message).body
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    @property
    def _all_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    @property
    def _answers_another(self) -> bool:
        """Whether an answer to an earlier message is under way or due."""
        if self._all_answered:
            return False
        return not self._in_body or bool(self.pipeline) or self.cycle.response_started

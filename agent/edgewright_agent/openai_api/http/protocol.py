"""uvicorn's HTTP protocol with the limits it lacks: on heads, bodies, time, and clients that do not read.

uvicorn has no options for these limits; its protocol class is the place to set them (`Config(http=…)`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from edgewright.sizes import format_bytes
from edgewright_agent.openai_api.http.body import BODY_BYTES_MAX
from edgewright_agent.openai_api.http.errors import ApiError
from edgewright_agent.openai_api.http.request_head import (
    HEAD_BYTES_MAX,
    RequestHead,
    check_head,
    too_large,
    without_upgrade,
)

MESSAGE_BYTES_MAX = HEAD_BYTES_MAX + 2 * BODY_BYTES_MAX  # as sent: chunks have heads, and trailers may follow
HEAD_SECONDS = 10.0  # from the connection, or from the first byte of a later head, to a whole head
# An answered connection that nobody uses. Clients keep theirs for 4 to 90 s: if this were less, a request could be sent
# just as the connection is closed, and be lost.
IDLE_SECONDS = 120.0
STALL_SECONDS = 30.0  # a client that reads less than STALL_BYTES in that time is gone
STALL_BYTES = 8 * 1024
UNREAD_BYTES_MAX = 16 * 1024  # of a stream: beyond that its engine waits for the client
REQUESTS_AHEAD_MAX = 16  # requests that wait on one connection behind the one being answered


class BoundedProtocol(HttpToolsProtocol):
    """One connection of a client; `on_lost` is called once it is closed."""

    is_connected = False  # before that, its TLS handshake is under way
    _message_bytes = 0  # of the message that is being read, its chunks' heads included
    _in_body = False  # the message's head is complete, its body is not
    _offers_upgrade = False  # the head being read offers another protocol: it is read again without the offer
    _ignores_input = False  # whatever else comes is dropped
    _deadline: asyncio.TimerHandle | None = None
    _unread_bytes = 0  # by the client, when the deadline was set

    def __init__(self, config: Config, state: ServerState, on_lost: Callable[[], None]) -> None:
        super().__init__(config, state, {})
        self.on_lost = on_lost

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost if this connection is closed: no whole request is waiting, no answer being read."""
        if not self.is_connected:
            return True
        return not self._answers_another and not self.transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Overrides asyncio's callback."""
        super().connection_made(transport)
        self.is_connected = True
        transport.set_write_buffer_limits(UNREAD_BYTES_MAX)
        self._set_deadline(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Overrides asyncio's callback."""
        self._clear_deadline()
        super().connection_lost(exc)
        self.on_lost()

    def data_received(self, data: bytes) -> None:
        """Overrides asyncio's callback."""
        if self._ignores_input:
            return
        if self._all_answered and not self._message_bytes and not self.flow.write_paused:
            self._set_deadline(HEAD_SECONDS)
        self._message_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            self._reject(_error_behind(error))
            return
        if self._in_body and self._message_bytes > MESSAGE_BYTES_MAX:
            message = f"At most {format_bytes(MESSAGE_BYTES_MAX)} are read."
            self._reject(_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message))
        elif not self._in_body and self._message_bytes > HEAD_BYTES_MAX:
            self._reject(too_large())

    def _parse(self, data: bytes) -> None:
        """Feeds the parser. Its own handling of an upgrade drops the request's body, so the offer is taken out."""
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = without_upgrade(self._head) + data[offer.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self._offers_upgrade = False
            else:
                return

    @property
    def _head(self) -> RequestHead:
        return RequestHead(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Overrides httptools' callback; fields behind the body are no part of the head."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Overrides httptools' callback."""
        check_head(self._head)
        if self.parser.should_upgrade():
            self._offers_upgrade = True
            return
        if len(self.pipeline) >= REQUESTS_AHEAD_MAX:
            raise _error(
                HTTPStatus.TOO_MANY_REQUESTS, f"At most {REQUESTS_AHEAD_MAX} requests may be sent ahead."
            )
        if not self.flow.write_paused:
            self._clear_deadline()
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Overrides httptools' callback."""
        if self._offers_upgrade:
            return
        self._in_body, self._message_bytes = False, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Overrides uvicorn's callback."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # uvicorn's own deadline
        if self._all_answered and not self.flow.write_paused:
            self._await_request()

    def pause_writing(self) -> None:
        """Overrides asyncio's callback: the client does not read."""
        super().pause_writing()
        self._set_deadline(STALL_SECONDS)

    def resume_writing(self) -> None:
        """Overrides asyncio's callback."""
        super().resume_writing()
        if self._all_answered:
            self._await_request()
        else:
            self._clear_deadline()

    def _await_request(self) -> None:
        self._set_deadline(HEAD_SECONDS if self._message_bytes else IDLE_SECONDS)

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
        if unread_bytes and unread_bytes <= self._unread_bytes - STALL_BYTES:
            self._set_deadline(STALL_SECONDS)  # slow, but reading
        elif unread_bytes or self.transport.is_closing():
            self.transport.abort()
        elif self._message_bytes:
            self._reject(_error(HTTPStatus.REQUEST_TIMEOUT, f"No whole head came within {HEAD_SECONDS:g} s."))
        else:
            self.transport.close()
            self._set_deadline(HEAD_SECONDS)  # TLS waits for the client's farewell

    def _reject(self, error: ApiError) -> None:
        """Sends an error and closes; where an earlier request is under way, it is answered and this one is not."""
        self._ignores_input = True
        if self.transport.is_closing():
            return
        if self._answers_another:
            self.cycle.keep_alive = False
            return
        self.transport.write(error.response)
        self.transport.close()
        self._set_deadline(HEAD_SECONDS)

    @property
    def _all_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    @property
    def _answers_another(self) -> bool:
        """Whether an answer to an earlier message is under way or due."""
        if self._all_answered:
            return False
        return not self._in_body or bool(self.pipeline) or self.cycle.response_started


def _error(status: HTTPStatus, message: str) -> ApiError:
    return ApiError(status, status.name.lower(), message, close=True)


def _error_behind(error: httptools.HttpParserError) -> ApiError:
    """Returns what a callback raised inside the parser, or the error of what is no HTTP."""
    if isinstance(error.__context__, ApiError):
        return error.__context__
    return _error(HTTPStatus.BAD_REQUEST, "This is no HTTP request.")

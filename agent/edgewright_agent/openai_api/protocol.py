"""uvicorn's HTTP parsing with the bounds it lacks: on heads, on time, on clients that don't read, on connections.

uvicorn offers its protocol class as the place to change this (`Config(http=…)`) and has no options for it.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgewright_agent.openai_api.errors import DoorError
from edgewright_agent.openai_api.requests import BODY_BYTES_MAX

HEAD_BYTES_MAX = 32 * 1024
MESSAGE_BYTES_MAX = HEAD_BYTES_MAX + 2 * BODY_BYTES_MAX  # as sent: chunks have heads, and trailers may follow
HEAD_SECONDS = 10.0  # from the connection or the last answer to a whole head
STALL_SECONDS = 30.0  # a client that reads nothing for so long is gone
CONNECTIONS_MAX = 128


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    _message_bytes = 0  # of the message that is being read, its chunks' heads included
    _in_body = False  # its head is complete, it is not
    _deaf = False  # nothing more is read
    _patience: asyncio.TimerHandle | None = None
    _unread_bytes = 0  # by the client, when patience began

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Of asyncio."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            self._refuse(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"There are {CONNECTIONS_MAX} connections already; try again later.",
            )
        else:
            self._wait(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        if self._deaf:
            return
        self._message_bytes += len(data)
        super().data_received(data)
        if self._in_body and self._message_bytes > MESSAGE_BYTES_MAX:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {MESSAGE_BYTES_MAX} bytes are read.")
        elif not self._in_body and self._message_bytes > HEAD_BYTES_MAX:
            message = f"The request's head has over {HEAD_BYTES_MAX} bytes."
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)

    def on_headers_complete(self) -> None:
        """Of httptools."""
        if not self.flow.write_paused:
            self._stop_waiting()
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Of httptools."""
        self._in_body, self._message_bytes = False, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Of uvicorn."""
        super().on_response_complete()
        if self._all_answered and not self.flow.write_paused:
            self._wait(HEAD_SECONDS)

    def pause_writing(self) -> None:
        """Of asyncio: the client does not read."""
        super().pause_writing()
        self._wait(STALL_SECONDS)

    def resume_writing(self) -> None:
        """Of asyncio."""
        super().resume_writing()
        if self._all_answered:
            self._wait(HEAD_SECONDS)
        else:
            self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """Of uvicorn: what came is no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, "This is no HTTP request.")

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._patience = self.loop.call_later(seconds, self._out_of_patience)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _out_of_patience(self) -> None:
        unread_bytes = self.transport.get_write_buffer_size()
        if unread_bytes and unread_bytes < self._unread_bytes:
            self._wait(STALL_SECONDS)  # slow, but reading
        elif unread_bytes:
            self.transport.abort()
        elif self._message_bytes:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"No whole head came within {HEAD_SECONDS:g} s.")
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answers and closes. If an earlier request is under way, that one is answered and this one is not."""
        self._deaf = True
        if self.transport.is_closing():
            return
        if self._answers_another:
            self.cycle.keep_alive = False
            return
        body = DoorError(status, status.name.lower(), message).body
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
        """Whether an answer is under way or due that is not to the message being read."""
        if self._all_answered:
            return False
        return not self._in_body or bool(self.pipeline) or self.cycle.response_started

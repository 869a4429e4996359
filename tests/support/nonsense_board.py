"""A gRPC server that answers each call of the wire contract with whatever bytes a test gives it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from edgewright.address import Address

SECONDS_MAX = 60.0  # a stream that a client does not leave ends by itself, so that a failing test ends too


@dataclass(frozen=True)
class Forever:
    """A stream that gives the same message again and again, or different ones by their number."""

    message: Callable[[int], Message]
    pause_seconds: float = 0.001


@dataclass(frozen=True)
class Silence:
    """A stream that gives these messages and then nothing, and stays open."""

    messages: tuple[Message, ...] = ()


Answer = Message | bytes | list[Message] | Forever | Silence


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, answers: Mapping[str, Answer], stopped: threading.Event) -> None:
        self._answers = answers
        self._stopped = stopped

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        name = str(details.method).rsplit("/", 1)[-1]
        if name not in self._answers:
            return None  # UNIMPLEMENTED

        def serve(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            return self._stream(self._answers[name], context)

        return grpc.stream_stream_rpc_method_handler(serve)

    def _stream(self, answer: Answer, context: grpc.ServicerContext) -> Iterator[bytes]:
        if isinstance(answer, (Message, bytes)):
            yield _encoded(answer)
        elif isinstance(answer, list):
            yield from map(_encoded, answer)
        elif isinstance(answer, Silence):
            yield from map(_encoded, answer.messages)
            self._wait(context, SECONDS_MAX)
        else:
            number, end = 0, time.monotonic() + SECONDS_MAX
            while time.monotonic() < end and self._wait(context, answer.pause_seconds):
                yield _encoded(answer.message(number))
                number += 1

    def _wait(self, context: grpc.ServicerContext, seconds: float) -> bool:
        """Whether the call is still wanted after so long."""
        end = time.monotonic() + seconds
        while context.is_active() and not self._stopped.is_set():
            left_seconds = end - time.monotonic()
            if left_seconds <= 0:
                return True
            time.sleep(min(0.02, left_seconds))
        return False


def _encoded(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


@contextmanager
def nonsense_board(answers: Mapping[str, Answer]) -> Iterator[Address]:
    """Serves the answers, by the name of the call, on loopback while the context is open."""
    stopped = threading.Event()
    options = [("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(8), options=options)
    server.add_generic_rpc_handlers((_Handler(answers, stopped),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Address("127.0.0.1", port)
    finally:
        stopped.set()
        server.stop(None).wait()

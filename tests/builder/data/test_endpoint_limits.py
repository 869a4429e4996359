"""No wait for a T1 server is without end, and no answer is held that is too large."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from edgewright.errors import OutsideError
from edgewright_builder.model_server.retries import RetryPolicy
from tests.support.endpoint_client import ask, sentence
from tests.support.teacher_server import Reply, teacher_server

MIB = 2**20


def test_a_server_that_drips_is_given_up_in_time() -> None:
    stop = threading.Event()

    def drip() -> Iterator[bytes]:
        while not stop.wait(0.02):
            yield b" "

    try:
        with (
            teacher_server(lambda _: Reply(200, drip())) as server,
            pytest.raises(OutsideError, match=r"no whole answer within 0.3 s") as raised,
        ):
            ask(server, retries=RetryPolicy(2, 0.01), timeout_seconds=0.3)
        assert "--resume" in sentence(raised.value)
        assert len(server.bodies) == 2
    finally:
        stop.set()


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    stop = threading.Event()

    def silence() -> Iterator[bytes]:
        stop.wait(30)
        yield b""

    try:
        with (
            teacher_server(lambda _: Reply(200, silence())) as server,
            pytest.raises(OutsideError, match=r"no whole answer within 0.3 s"),
        ):
            ask(server, retries=RetryPolicy(1, 0.01), timeout_seconds=0.3)
    finally:
        stop.set()


def test_an_answer_of_400_mb_is_given_up_at_once_and_never_held() -> None:
    sent = 0

    def flood() -> Iterator[bytes]:
        nonlocal sent
        while sent < 400 * MIB:
            sent += MIB
            yield b" " * MIB

    with teacher_server(lambda _: Reply(200, flood(), 400 * MIB)) as server:
        tracemalloc.start()
        try:
            with pytest.raises(OutsideError, match=r"more than 8.0 MiB") as raised:
                ask(server)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert "--resume" in sentence(raised.value)
    assert len(server.bodies) == 1
    assert sent < 100 * MIB
    assert peak_bytes < 64 * MIB

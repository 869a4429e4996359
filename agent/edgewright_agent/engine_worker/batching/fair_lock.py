"""A lock whose holders take turns in the order they asked.

Tokenizing a long prompt and reading a slice of one take turns, so that the memory that the plan counts for the slice
serves for either. `threading.Lock` is not enough: a thread that gives it up and asks again gets it before one that
waits.
"""

from __future__ import annotations

import threading
from types import TracebackType


class Turns:
    """A context manager. It may not be entered twice by one thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 0  # the number of who asks next
        self._turn = 0  # the number of whose turn it is

    def __enter__(self) -> None:
        """Waits for its turn."""
        with self._changed:
            number, self._next = self._next, self._next + 1
            while number != self._turn:
                self._changed.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets the next one in."""
        with self._changed:
            self._turn += 1
            self._changed.notify_all()

"""Every error Edgewright raises on purpose, on the board and on the host.

EdgewrightError             a sentence for people, a Reason for programs, an exit code for shells
├── InputError        (2)   what was asked for is wrong: a file, an option, a manifest, an argument
├── RefusedError      (1)   well asked, and the answer is no: does not fit, not trusted, not found
│   └── BusyError           ... not now: another transition, upload or request is under way
└── OutsideError      (3)   something outside failed: disk, network, engine, sensor
"""

from __future__ import annotations

from edgewright.v1.common_pb2 import Reason


class EdgewrightError(Exception):
    """Base of all. `str(error)` is one sentence with the expected and the actual value and what to do."""

    exit_code = 3
    default_reason = Reason.REASON_UNSPECIFIED

    def __init__(self, message: str, reason: Reason.ValueType | None = None) -> None:
        super().__init__(message)
        self.reason: Reason.ValueType = self.default_reason if reason is None else reason


class InputError(EdgewrightError):
    """What was asked for is wrong; asking again the same way will not help."""

    exit_code = 2
    default_reason = Reason.REASON_INVALID_ARGUMENT


class RefusedError(EdgewrightError):
    """The question was right and the answer is no."""

    exit_code = 1


class BusyError(RefusedError):
    """The board is busy: ask again later."""

    default_reason = Reason.REASON_BUSY

    def __init__(
        self, message: str, reason: Reason.ValueType | None = None, *, retry_seconds: int = 1
    ) -> None:
        super().__init__(message, reason)
        self.retry_seconds = retry_seconds  # when asking again makes sense


class OutsideError(EdgewrightError):
    """Something outside failed: disk, network, engine, sensor."""

    exit_code = 3

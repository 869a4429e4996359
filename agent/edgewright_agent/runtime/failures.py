"""Classifies failures that the agent survives: how to log them, and whether the board or the release is to blame."""

from __future__ import annotations

import errno
import logging

from edgewright.errors import EdgewrightError, OutsideError
from edgewright.v1.common_pb2 import Reason

_SHORTAGES = (
    errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE,
    errno.ENOMEM, errno.EAGAIN,  # no memory for another process, or too many processes
)  # fmt: skip


def log_failure(log: logging.Logger, what: str, error: Exception) -> None:
    """Logs one line for what is expected to go wrong, and a traceback for what is not."""
    expected = isinstance(error, (EdgewrightError, OSError))
    log.error("%s: %s", what, error, exc_info=None if expected else error)


def is_rot(error: Exception) -> bool:
    """Whether the store no longer holds what was put there, so that only another push helps."""
    return isinstance(error, EdgewrightError) and error.reason == Reason.REASON_STORE_CORRUPT


def is_untrusted(error: Exception) -> bool:
    """Whether the trust in force does not let the release be served, which says nothing of how it would run."""
    return isinstance(error, EdgewrightError) and error.reason == Reason.REASON_KEY_UNTRUSTED


def is_shortage(error: Exception) -> bool:
    """Whether the board was out of something, so that nothing is known of the release."""
    if isinstance(error, OutsideError):
        return error.reason in (Reason.REASON_UNSPECIFIED, Reason.REASON_DISK_SPACE)
    return is_named_shortage(error)


def is_named_shortage(error: Exception) -> bool:
    """Whether the system itself named what the board was out of, so that it passes; a damaged disk may not."""
    return any(
        isinstance(reason, OSError) and reason.errno in _SHORTAGES for reason in (error, error.__cause__)
    )

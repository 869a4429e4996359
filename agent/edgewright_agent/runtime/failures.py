"""A failure that is survived: how the log says it, and whether the board is to blame."""

from __future__ import annotations

import errno
import logging

from edgewright.errors import EdgewrightError, OutsideError
from edgewright.v1.common_pb2 import Reason

_SHORTAGES = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)


def log_failure(log: logging.Logger, what: str, error: Exception) -> None:
    """One line for what is expected to go wrong, a traceback for what is not."""
    expected = isinstance(error, (EdgewrightError, OSError))
    log.error("%s: %s", what, error, exc_info=None if expected else error)


def is_rot(error: Exception) -> bool:
    """Whether what the store holds no longer is what was put there: only another push helps."""
    return isinstance(error, EdgewrightError) and error.reason == Reason.REASON_STORE_CORRUPT


def is_untrusted(error: Exception) -> bool:
    """Whether the trust in force does not let the release be served, which says nothing of how it would run."""
    return isinstance(error, EdgewrightError) and error.reason == Reason.REASON_KEY_UNTRUSTED


def is_shortage(error: Exception) -> bool:
    """Whether the board was out of something, so that nothing is known of the release: an engine says what it lacks."""
    if isinstance(error, OutsideError):
        return error.reason in (Reason.REASON_UNSPECIFIED, Reason.REASON_DISK_SPACE)
    return isinstance(error, OSError) and error.errno in _SHORTAGES

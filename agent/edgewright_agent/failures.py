"""A failure that is survived: how it is told in the log, and whether the disk is to blame."""

from __future__ import annotations

import logging

from edgewright.v1.common_pb2 import Reason
from edgewright_agent.errors import EdgewrightError


def log_failure(log: logging.Logger, what: str, error: Exception) -> None:
    """One line for what is expected to go wrong, a traceback for what is not."""
    expected = isinstance(error, (EdgewrightError, OSError))
    log.error("%s: %s", what, error, exc_info=None if expected else error)


def is_rot(error: Exception) -> bool:
    """Whether what the store holds no longer is what was put there: only another push helps."""
    return isinstance(error, EdgewrightError) and error.reason == Reason.REASON_STORE_CORRUPT

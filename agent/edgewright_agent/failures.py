"""How a failure that is survived is told in the log."""

from __future__ import annotations

import logging

from edgewright_agent.errors import EdgewrightError


def log_failure(log: logging.Logger, what: str, error: Exception) -> None:
    """One line for what is expected to go wrong, a traceback for what is not."""
    expected = isinstance(error, (EdgewrightError, OSError))
    log.error("%s: %s", what, error, exc_info=None if expected else error)

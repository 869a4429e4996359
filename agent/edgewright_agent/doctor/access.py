"""Finds files that this user may not read. Under the systemd unit that is no fault: root reads them for the agent."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from edgewright_agent.doctor.finding import Finding, Subject, warning

CONFIGURATION = "etc/edgewright"  # where the unit's LoadCredential= looks


def ask_for_root(subject: Subject, paths: Iterable[Path]) -> Finding | None:
    """Returns a warning for the first path that only root may look at: root's configuration, another user's store."""
    for path in paths:
        if _is_closed(path) and (_is_configuration(subject, path) or _is_in_store(subject, path)):
            return warning(
                f"This user may not read {path}.",
                "Look as root: `sudo edgewright-agent doctor …`. Leave its owner and mode: systemd hands the agent "
                "what is root's.",
            )
    return None


def is_hidden(path: Path) -> bool:
    """Whether this user may not even know that the path exists."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _is_closed(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))  # a folder, too
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _is_configuration(subject: Subject, path: Path) -> bool:
    within = path.is_relative_to(subject.root / CONFIGURATION)
    return within and (is_hidden(path) or path.stat().st_uid == 0)


def _is_in_store(subject: Subject, path: Path) -> bool:
    return subject.store is not None and path.is_relative_to(subject.store)

"""File handles: how many this process may have, and how many of them clients' connections may take."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass

# The agent's own, with an engine being started, eight uploads, a scrub and every sensor open: 40 were counted.
OWN_HANDLES = 48
GRPC_CONNECTIONS_MAX = 128
OPENAI_CONNECTIONS_MAX = 128
METRICS_CONNECTIONS_MAX = 8


@dataclass(frozen=True)
class ConnectionLimits:
    """The most connections each server may have at once."""

    grpc: int
    openai: int
    metrics: int


def raise_handle_limit() -> int:
    """Raises this process's limit as far as the system lets it; returns it. Engines inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # kept as it is: the limits below follow it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft


def connection_limits(handles: int | None = None) -> ConnectionLimits:
    """How many connections leave the agent its own handles, where the process may have `handles`; None: as it is."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if handles is None else handles
    spare = max(0, limit - OWN_HANDLES) if limit != resource.RLIM_INFINITY else 2**16
    metrics = min(METRICS_CONNECTIONS_MAX, max(2, spare // 8))
    each = max(4, (spare - metrics) // 2)
    return ConnectionLimits(min(GRPC_CONNECTIONS_MAX, each), min(OPENAI_CONNECTIONS_MAX, each), metrics)

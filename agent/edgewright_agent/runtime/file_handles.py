"""File handles: how many this process may have, and how many of them clients' connections may take."""

from __future__ import annotations

import contextlib
import resource

GRPC_CONNECTIONS_MAX = 128
OPENAI_CONNECTIONS_MAX = 128
METRICS_CONNECTIONS_MAX = 8


def raise_handle_limit() -> None:
    """Raises this process's limit of open files as far as the system lets it. Engines inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # the limits below follow what there is
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def grpc_connections_max() -> int:
    """Returns how many connections to the gRPC server leave enough handles for the engine, the store and the sensors.

    A fifth of what the process may have; the OpenAI-compatible server takes a quarter, the metrics a sixteenth.
    """
    return max(4, min(GRPC_CONNECTIONS_MAX, _handles() // 5))


def openai_connections_max() -> int:
    """Returns how many connections the OpenAI-compatible server may have."""
    return max(4, min(OPENAI_CONNECTIONS_MAX, _handles() // 4))


def metrics_connections_max() -> int:
    """Returns how many connections the server of metrics may have."""
    return max(2, min(METRICS_CONNECTIONS_MAX, _handles() // 16))


def _handles() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if limit == resource.RLIM_INFINITY else limit

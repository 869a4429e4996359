"""The proxies that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY), and one that can't be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from edgewright.errors import InputError


@contextmanager
def usable_proxies() -> Iterator[None]:
    """Raises InputError where httpx can't make a client with the proxies of the environment."""
    try:
        yield
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        fault = " ".join(str(error).split())
        if isinstance(error, httpx.InvalidURL) or "proxy" in fault.lower():
            raise InputError(
                f"The proxy in HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY can't be used "
                f"({fault[:200].rstrip('.')}); correct the variable or unset it."
            ) from None
        raise

"""How a model's server is asked: with which key, from plain code, and what of its answer is shown."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from edgewright.errors import InputError

T = TypeVar("T")


def authorization(key_variable: str | None) -> dict[str, str]:
    """Returns the header that carries the key in the environment variable; nothing where there is no key.

    Raises InputError for a key that can't be sent.
    """
    key = os.environ.get(key_variable or "", "").strip()
    if not key.isascii() or not key.isprintable():
        raise InputError(
            f"The environment variable {key_variable} holds no key: it must be one line of ASCII."
        )
    return {"Authorization": f"Bearer {key}"} if key else {}


def run_to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine from plain code, also where the thread has a running loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()


def json_object(data: bytes) -> dict[str, Any]:
    """Returns the body as an object. Raises ValueError if it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(f"an answer that is no JSON: {excerpt(data)}") from None
    if not isinstance(value, dict):
        raise ValueError(f"an answer that is no JSON object: {excerpt(data)}")
    return value


def excerpt(data: bytes) -> str:
    """Returns the beginning of a body on one line."""
    return " ".join(data[:1000].decode(errors="replace").split())[:200] or "nothing"

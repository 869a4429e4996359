"""The progress of a process that quantizes: it prints a line for each decoder layer that it reaches."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

PATTERN = re.compile(r"layer (\d+) of (\d+) reached")


def report_layers(layers: Any, on_reached: Callable[[], None] = lambda: None) -> None:
    """Prints a line and calls `on_reached` when a forward pass reaches each of `layers` for the first time."""
    seen: set[int] = set()

    def hook(index: int) -> Callable[..., None]:
        def on_forward(*_: Any) -> None:
            if index not in seen:
                seen.add(index)
                on_reached()
                print(f"layer {index + 1} of {len(layers)} reached", flush=True)  # noqa: T201 - the parent reads it

        return on_forward

    for index, layer in enumerate(layers):
        layer.register_forward_pre_hook(hook(index))

"""The Python reference: every name of `edgewright.__all__`, by what it is for."""

from __future__ import annotations

import inspect

import edgewright

INTRODUCTION = """# Python SDK

```python
import edgewright as ew
```

Every command is a thin layer over these names. They are listed in `edgewright.__all__` and stay.
Importing `edgewright` loads none of the heavy libraries: a plain board install has no torch.
"""
GROUPS = ("Functions", "Boards", "Results", "Errors")


def page() -> str:
    """The whole page in Markdown, with a directive of mkdocstrings for each name."""
    parts = [INTRODUCTION]
    for group in GROUPS:
        names = [name for name in edgewright.__all__ if group_of(name) == group]
        if names:
            parts.append(f"## {group}\n")
            parts += [f"::: {path_of(name)}\n" for name in names]
    return "\n".join(parts)


def group_of(name: str) -> str | None:
    """Under which heading a name stands; None for what is no function and no class."""
    thing = getattr(edgewright, name)
    if inspect.isroutine(thing):
        return "Functions"
    if not inspect.isclass(thing):
        return None
    if issubclass(thing, Exception):
        return "Errors"
    return "Boards" if name.endswith("Board") else "Results"


def path_of(name: str) -> str:
    """Where a name is defined, as mkdocstrings finds it."""
    thing = getattr(edgewright, name)
    return f"{thing.__module__}.{thing.__qualname__}"


if __name__ == "__main__":
    print(page())

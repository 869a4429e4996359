"""Reads the YAML files that people write, such as recipes, studies, fleets and device profiles."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from edgewright.errors import InputError


def read_mapping(path: Path, kind: str) -> dict[str, Any]:
    """Returns the keys and values in `path`; `kind` says in errors what is expected there, such as "recipe".

    Raises InputError where the file can't be read, is not YAML, or holds anything but keys and values.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The {kind} {path} can't be read: {error.strerror}; give the path of a YAML file."
        ) from None
    except UnicodeDecodeError:
        raise InputError(
            f"The {kind} {path} can't be read: it is not UTF-8 text; give the path of a YAML file."
        ) from None
    return parse_mapping(text, str(path), kind)


def parse_mapping(text: str, where: str, kind: str) -> dict[str, Any]:
    """Returns the keys and values in a YAML text; `where` names it in errors. Raises as `read_mapping` does."""
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-13-01
        raise InputError(f"{where} is not YAML: {_complaint(error)}.") from None
    if not isinstance(value, dict):
        raise InputError(f"{where} {_held(value)}; a {kind} has lines `key: value`.")
    return value


class _Loader(yaml.SafeLoader):
    """YAML's plain types, no key twice (PyYAML would keep the last value and say nothing), and no NUL in a text."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        text = str(super().construct_scalar(node))
        if "\0" in text:  # as no path may have one
            raise yaml.MarkedYAMLError(problem="a NUL character; remove it", problem_mark=node.start_mark)
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key `{key.value}` stands twice; remove one", problem_mark=key.start_mark
                )
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


def _complaint(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return " ".join(str(error).split())


def _held(value: object) -> str:
    if value is None:
        return "is empty"
    return "holds a list" if isinstance(value, list) else f"holds {value!r:.100} alone"

"""Alpaca rows (Taori et al., 2023): `instruction`, `input`, `output`, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgewright.errors import InputError


@dataclass(frozen=True)
class AlpacaRow:
    """One instruction with its optional input and the output to learn."""

    instruction: str
    input: str
    output: str


def read_alpaca(path: Path) -> list[AlpacaRow]:
    """The rows of a file; blank lines are passed over and further fields ignored.

    Raises InputError, with the line's number, for what is no JSON object, a missing field or an empty text.
    """
    return [_row(f"{path}, line {number}", value) for number, value in read_jsonl(path)]


def write_alpaca(rows: Iterable[AlpacaRow]) -> bytes:
    """The file's bytes; equal rows give equal bytes."""
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows).encode()


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of each line that is not blank. Raises InputError as `read_alpaca` does."""
    try:
        # Split at b"\n" only: a text may hold U+2028, which str.splitlines would split at.
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"data file {path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: expected a JSON object, and this is no JSON ({error})"
            ) from error
        if not isinstance(value, dict):
            raise InputError(f"{path}, line {number}: expected a JSON object, found {type(value).__name__}")
        yield number, value


def _row(where: str, value: dict[str, Any]) -> AlpacaRow:
    for name in ("instruction", "output"):
        if not isinstance(value.get(name), str) or not value[name].strip():
            raise InputError(f"{where}: expected a text in {name!r}, found {value.get(name)!r}")
    extra = value.get("input") or ""
    if not isinstance(extra, str):
        raise InputError(f"{where}: expected a text in 'input', found {extra!r}")
    return AlpacaRow(value["instruction"].strip(), extra.strip(), value["output"].strip())

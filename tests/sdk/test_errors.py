"""What errors say, wherever they are raised."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    file
    for room in ("sdk/edgewright", "agent/edgewright_agent", "builder/edgewright_builder")
    for file in (ROOT / room).rglob("*.py")
    if "OutsideError(" in file.read_text(encoding="utf-8")
)
ADVICE = re.compile(
    r"\b(accept|activate|allow|ask|check|choose|delete|free some|give|go on|look|make room|mend|push|reaches it|run|"
    r"see|send it|started again|try|update|use|wait|AGAIN|child_fault)\b",
    re.IGNORECASE,
)
# Why a release was rolled back: the verdict of the push that shows it says what to do.
VERDICTS = ("activation.py",)
WORDS_OF_OTHERS = 4
Function = ast.FunctionDef | ast.AsyncFunctionDef


def texts_of(node: ast.AST) -> list[str]:
    """The texts in an expression."""
    parts = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
    return [part for part in parts if isinstance(part, str)]


def names_in(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def messages(function: Function) -> Iterator[tuple[int, str]]:
    """Line and text of each OutsideError, with what the function has put into the names in it."""
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and names_in(call.func) == {"OutsideError"} and call.args:
            names = names_in(call.args[0])
            parts = [call.args[0]]
            for node in ast.walk(function):
                if isinstance(node, ast.Assign) and names & set().union(*map(names_in, node.targets)):
                    parts.append(node.value)
            yield (
                call.lineno,
                " ".join([*sorted(names), *(text for part in parts for text in texts_of(part))]),
            )


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_outside_error_says_what_to_do(file: Path) -> None:
    """An error that only hands on the words of another is that one's business."""
    functions = [
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    silent = [
        f"line {line}: {message}"
        for function in functions
        for line, message in messages(function)
        if len(message.split()) > WORDS_OF_OTHERS and not ADVICE.search(message)
    ]
    assert file.name in VERDICTS or not silent

"""The index of errors: each sentence that the sources can raise, with its exit code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ("sdk", "agent", "builder", "device_profiles")
KINDS = {"InputError": 2, "RefusedError": 1, "BusyError": 1, "OutsideError": 3, "LinkError": 3}
GAP = "…"  # what the code fills in

INTRODUCTION = """# Errors

This page is made from the code: every sentence that Edgewright raises on purpose, in the order of its rooms.
`…` stands for what is filled in. [Troubleshooting](../troubleshooting.md) tells what to do about the common ones.
"""

MEANINGS = {
    2: "Bad input: asking again in the same way does not help",
    1: "The answer is no",
    3: "Something outside failed",
}


@dataclass(frozen=True)
class ErrorSentence:
    """One sentence of the code."""

    text: str
    exit_code: int
    room: str  # the folder it is raised in, like agent/store


def page() -> str:
    """The whole page in Markdown."""
    sentences = error_sentences()
    parts = [INTRODUCTION]
    for exit_code, meaning in MEANINGS.items():
        parts.append(f"## {meaning} (exit code {exit_code})\n")
        rooms = sorted({sentence.room for sentence in sentences if sentence.exit_code == exit_code})
        for room in rooms:
            texts = [s.text for s in sentences if s.room == room and s.exit_code == exit_code]
            parts.append(f"**{room}**\n")
            parts += [f"- {_escaped(text)}" for text in sorted(set(texts))]
            parts.append("")
    return "\n".join(parts)


def error_sentences() -> list[ErrorSentence]:
    """Every sentence given to an error of Edgewright's own, wherever one is made."""
    return [
        ErrorSentence(text, KINDS[kind], _room(path))
        for path in _sources()
        for kind, text in _raised(ast.parse(path.read_text(encoding="utf-8")))
    ]


def strings() -> set[str]:
    """Every string in the sources, with gaps where something is filled in: what troubleshooting may quote."""
    found = set()
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (text := _text(node)) is not None:
                found.add(" ".join(text.split()))
    return found


def _sources() -> Iterator[Path]:
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            if "_pb2" not in path.name:
                yield path


def _raised(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _raised_in(function)


def _raised_in(function: ast.AST) -> Iterator[tuple[str, str]]:
    """Yields the kinds and sentences of errors made in a function, also where a sentence got a name first."""
    named: dict[str, str] = {}
    for node in _in_order(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named[node.targets[0].id] = _text(node.value) or ""
        elif isinstance(node, ast.Call) and (kind := _kind(node.func)) and node.args:
            given = node.args[0]
            text = named.get(given.id) if isinstance(given, ast.Name) else _text(given)
            if text is not None and text.strip(GAP + " ."):
                yield kind, " ".join(text.split())


def _in_order(node: ast.AST) -> Iterator[ast.AST]:
    """Yields every node below, in the order of the source, without functions inside."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _in_order(child)


def _kind(function: ast.AST) -> str | None:
    return function.id if isinstance(function, ast.Name) and function.id in KINDS else None


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            GAP if isinstance(part, ast.FormattedValue) else str(_text(part)) for part in node.values
        )
    return None


def _room(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return "/".join([parts[0], *parts[2:-1]])


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


if __name__ == "__main__":
    print(page())

"""JetPack 6 brings Python 3.10: what only a later one compiles must not come in unnoticed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import edgewright_agent
import edgewright_profiles

SOURCES = [
    file
    for package in (edgewright_agent, edgewright_profiles)
    for file in Path(next(iter(package.__path__))).rglob("*.py")
]
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp)


def awaiting_inside_another(tree: ast.AST) -> Iterator[int]:
    """Lines of comprehensions that await inside another comprehension: a SyntaxError before Python 3.11."""
    outer = (node for node in ast.walk(tree) if isinstance(node, COMPREHENSIONS))
    for comprehension in outer:
        for inner in ast.walk(comprehension):
            if inner is comprehension or not isinstance(inner, COMPREHENSIONS):
                continue
            if any(isinstance(node, ast.Await) for node in ast.walk(inner)):
                yield inner.lineno


def test_the_check_sees_what_python_310_refuses() -> None:
    code = "async def f(x):\n    return [[await g(b) for b in a] for a in x]"
    assert list(awaiting_inside_another(ast.parse(code))) == [2]
    assert not list(
        awaiting_inside_another(ast.parse(code.replace("[[await g(b) for b in a]", "[await g(a)")))
    )


def test_the_board_s_source_is_python_310() -> None:
    assert len(SOURCES) > 100
    found = []
    for file in SOURCES:
        tree = ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 10))
        found += [f"{file.name}:{line}" for line in awaiting_inside_another(tree)]
    assert found == []

"""Reads the YAML files that people write, such as recipes, studies, fleets and device profiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from edgewright.errors import InputError

MERGE = "tag:yaml.org,2002:merge"  # of the key `<<`, https://yaml.org/type/merge.html
DIGITS_MAX = 1000  # of a whole number
VALUES_MAX = 2_000_000  # with each alias written out: a fleet of 10,000 boards has a tenth of it


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
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        # Constructors raise the last four, as for the date 2026-13-01 and for `!!bool maybe`.
        raise InputError(f"{where} is not YAML: {_complaint(error)}.") from None
    if not isinstance(value, dict):
        raise InputError(f"{where} {_held(value)}; a {kind} has lines `key: value`.")
    return value


class _Loader(yaml.SafeLoader):
    """YAML's plain types, no key twice (PyYAML would keep the last value and say nothing), and no NUL in a text.

    An alias may not stand within what it names, and aliases of aliases may not stand for more than `VALUES_MAX`.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._open: set[str] = set()  # anchors of what is being read
        self._sizes: dict[int, int] = {}  # values in each node, by its id

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        alias = self.peek_event() if self.check_event(yaml.AliasEvent) else None  # type: ignore[no-untyped-call]
        if alias is not None and alias.anchor in self._open:
            raise _wrong(
                f"`*{alias.anchor}` stands within what it names; write its values out", alias.start_mark
            )
        return super().compose_node(parent, index)

    def compose_sequence_node(self, anchor: Any) -> yaml.SequenceNode:
        with self._reading(anchor):
            node = super().compose_sequence_node(anchor)
        self._measure(node, node.value)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        with self._reading(anchor):
            node = super().compose_mapping_node(anchor)
        _refuse_repeated_keys(node)
        self._measure(node, [part for pair in node.value for part in pair])
        return node

    @contextmanager
    def _reading(self, anchor: Any) -> Iterator[None]:
        names = set() if anchor is None else {anchor}
        self._open |= names
        try:
            yield
        finally:
            self._open -= names

    def _measure(self, node: yaml.Node, parts: Iterable[yaml.Node]) -> None:
        self._sizes[id(node)] = size = 1 + sum(self._sizes.get(id(part), 1) for part in parts)
        if size > VALUES_MAX:
            raise _wrong(f"its aliases stand for more than {VALUES_MAX:,} values; use fewer", node.start_mark)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Writes merged keys out: a mapping's own keys count most, then those of the mapping that is named first.

        PyYAML 6.0.4 turns that about, for keys of one letter in another way than for longer ones.
        """
        own = [pair for pair in node.value if pair[0].tag != MERGE]
        chosen = {_identity(key) for key, _ in own}
        merged: list[tuple[yaml.Node, yaml.Node]] = []
        for mapping in _named_by_merges(node):
            self.flatten_mapping(mapping)
            fresh = [pair for pair in mapping.value if _identity(pair[0]) not in chosen]
            chosen |= {_identity(key) for key, _ in fresh}
            merged += fresh
        node.value = merged + own
        super().flatten_mapping(node)  # which has no merge left to do

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        text = str(super().construct_scalar(node))
        if "\0" in text:  # as no path may have one
            raise _wrong("a NUL character; remove it", node.start_mark)
        try:  # JSON, which is YAML too, may write a character as two escapes, and PyYAML leaves them apart
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            raise _wrong("half a character (\\ud800 to \\udfff); write it whole", node.start_mark) from None


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    if len(node.value) > DIGITS_MAX:
        raise _wrong(f"a number of more than {DIGITS_MAX:,} digits; correct it", node.start_mark)
    return int(loader.construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def _identity(key: yaml.Node) -> tuple[str, str]:
    return key.tag, str(key.value)


def _named_by_merges(node: yaml.MappingNode) -> Iterator[yaml.MappingNode]:
    for key, value in node.value:
        if key.tag != MERGE:
            continue
        for mapping in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if not isinstance(mapping, yaml.MappingNode):
                raise _wrong("`<<` takes keys and values, or a list of those", mapping.start_mark)
            yield mapping


def _refuse_repeated_keys(node: yaml.MappingNode) -> None:
    """Raises for a key that stands twice as it is written. One that is merged in may be overridden."""
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and _identity(key) in seen:
            raise _wrong(f"the key `{key.value}` stands twice; remove one", key.start_mark)
        seen.add(_identity(key))


def _wrong(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _complaint(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, (LookupError, AttributeError, TypeError)):
        return f"a value does not fit its tag ({' '.join(str(error).split())})"
    return " ".join(str(error).split())


def _held(value: object) -> str:
    if value is None:
        return "is empty"
    return "holds a list" if isinstance(value, list) else f"holds {value!r:.100} alone"

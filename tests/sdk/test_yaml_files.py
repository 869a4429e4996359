from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.errors import InputError
from edgewright.yaml_files import parse_mapping, read_mapping


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "x.yaml is empty; a recipe has lines `key: value`."),
        ("- a\n", "x.yaml holds a list; a recipe has lines `key: value`."),
        ("hello", "x.yaml holds 'hello' alone; a recipe has lines `key: value`."),
        (
            "a: 1\nb: [",
            "x.yaml is not YAML: line 2, column 5: expected the node content, but found '<stream end>'.",
        ),
        ("a: 1\nb: 2\na: 3", "x.yaml is not YAML: line 3, column 1: the key `a` stands twice; remove one."),
        ("s: {a: 1, a: 1}", "x.yaml is not YAML: line 1, column 11: the key `a` stands twice; remove one."),
        ("day: 2026-13-01", "x.yaml is not YAML: month must be in 1..12."),
        ("[" * 5000, "x.yaml is not YAML: it is nested too deeply."),
        ('a: 1\nb: "x\\0"', "x.yaml is not YAML: line 2, column 4: a NUL character; remove it."),
        ("a: !!python/name:os.system", "could not determine a constructor for the tag"),
    ],
    ids=["empty", "list", "word", "open", "twice", "twice-below", "date", "deep", "nul", "code"],
)
def test_what_is_no_mapping_is_told_in_one_sentence_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_mapping(text, "x.yaml", "recipe")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_merged_mapping_may_override_a_key() -> None:
    text = "base: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}"
    assert parse_mapping(text, "x.yaml", "recipe")["mine"] == {"a": 1, "b": 3}


def test_a_file_that_can_t_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "noise.yaml").write_bytes(b"a: \xff")
    for name, reason in (
        ("none", "No such file or directory"),
        ("", "Is a directory"),
        ("noise.yaml", "not UTF-8"),
    ):
        with pytest.raises(
            InputError, match=rf"^The study .* can't be read: .*{reason}.*; give the path of a YAML"
        ):
            read_mapping(tmp_path / name, "study")

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
        (
            'a: "\\ud83d"',
            "x.yaml is not YAML: line 1, column 4: half a character (\\ud800 to \\udfff); write it",
        ),
        ("a: !!bool maybe", "x.yaml is not YAML: a value does not fit its tag ('maybe')."),
        ("a: !!timestamp soon", "x.yaml is not YAML: a value does not fit its tag ("),
        ("a: !!int x", "x.yaml is not YAML: invalid literal for int"),
        (
            "a: 0x" + "f" * 5000,
            "x.yaml is not YAML: line 1, column 4: a number of more than 1,000 digits; correct it.",
        ),
        (
            "a: " + "9" * 5000,
            "x.yaml is not YAML: line 1, column 4: a number of more than 1,000 digits; correct it.",
        ),
        ("a: !!python/name:os.system", "could not determine a constructor for the tag"),
    ],
    ids=[
        "empty",
        "list",
        "word",
        "open",
        "twice",
        "twice-below",
        "date",
        "deep",
        "nul",
        "half",
        "bool",
        "timestamp",
        "int",
        "hex",
        "digits",
        "code",
    ],
)
def test_what_is_no_mapping_is_told_in_one_sentence_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_mapping(text, "x.yaml", "recipe")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_character_that_json_writes_as_two_escapes_is_one() -> None:
    assert parse_mapping(r'{"a": "\ud83d\udc4d é"}', "x.json", "recipe") == {"a": "\N{THUMBS UP SIGN} é"}


def test_a_merged_mapping_may_override_a_key() -> None:
    text = "base: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}"
    assert parse_mapping(text, "x.yaml", "recipe")["mine"] == {"a": 1, "b": 3}


def test_a_merged_override_is_no_repeated_key_wherever_it_is_merged_again() -> None:
    text = """
base: &base {a: 1}
outer:
  one: &one
    <<: *base
    a: 2
other:
  <<: *one
"""
    values = parse_mapping(text, "x.yaml", "recipe")
    assert values["outer"]["one"] == values["other"] == {"a": 2}


@pytest.mark.parametrize("key", ["k", "key"])
def test_of_merged_mappings_the_one_named_first_counts_and_a_mapping_s_own_keys_before_them(key: str) -> None:
    text = f"""
one: &one {{{key}: 1}}
two: &two {{{key}: 2, more: 2}}
three: &three {{<<: *one, {key}: 3}}
several: {{<<: [*one, *two]}}
again: {{<<: [*three, *two]}}
"""
    values = parse_mapping(text, "x.yaml", "recipe")
    assert values["several"] == {key: 1, "more": 2}
    assert values["again"] == {key: 3, "more": 2}


@pytest.mark.parametrize("text", ["a: {<<: 1}", "a: {<<: [{b: 1}, c]}"])
def test_what_can_not_be_merged_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(
        InputError, match=r"line 1, column \d+: `<<` takes keys and values, or a list of those"
    ):
        parse_mapping(text, "x.yaml", "recipe")


@pytest.mark.parametrize(
    "text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {b: [{c: *a}]}"], ids=["list", "map", "deep"]
)
def test_an_alias_within_what_it_names_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(InputError, match=r"^x\.yaml is not YAML: line 1, column \d+: `\*a` stands within"):
        parse_mapping(text, "x.yaml", "recipe")


def test_aliases_that_stand_for_millions_of_values_are_refused_before_they_are_written_out() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    with pytest.raises(
        InputError, match=r"line 7, column \d+: its aliases stand for more than 2,000,000 values"
    ):
        parse_mapping("\n".join(lines), "x.yaml", "recipe")


def test_an_alias_may_be_used_often() -> None:
    values = parse_mapping("a: &a [1, 2]\nb: [*a, *a]\nc: {d: *a}", "x.yaml", "recipe")
    assert values == {"a": [1, 2], "b": [[1, 2], [1, 2]], "c": {"d": [1, 2]}}


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

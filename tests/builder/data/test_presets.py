"""Task presets and prompts, the shipped ones and your own: what is wrong in one is named before a model is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import InputError
from edgewright_builder.data.presets import TASKS, load_preset
from edgewright_builder.data.prompts import check_prompts, load_prompts


@pytest.mark.parametrize("task", TASKS)
def test_each_preset_has_20_key_phrases_and_renders_every_prompt(task: str) -> None:
    preset, prompts = load_preset(task), load_prompts()
    assert preset.task == task
    assert len(set(preset.key_phrases)) == 20
    assert all(example.question.endswith("?") and example.answer.endswith(".") for example in preset.examples)
    chats = (
        prompts.render("topics", preset=preset, phrase="p", count=5),
        prompts.render("questions", preset=preset, phrase="p", topic="tides"),
        prompts.render("answers", preset=preset, question="Why?"),
        prompts.render("rubric", preset=preset, question="Why?", answer="So."),
    )
    assert [chat[-1]["role"] for chat in chats] == ["user"] * 4
    assert "tides" in chats[1][-1]["content"]


def test_a_folder_of_prompts_overrides_the_packaged_ones(tmp_path: Path) -> None:
    (tmp_path / "answers.txt").write_text("[user]\nBe brief: {{ question }}\n")
    prompts = load_prompts(tmp_path)
    assert prompts.render("answers", question="Why?") == [{"role": "user", "content": "Be brief: Why?"}]
    assert prompts.texts["rubric"] == load_prompts().texts["rubric"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("answers.txt", "[user]\n{{ qestion }}", "'qestion' is undefined; it may use question"),
        ("answers.txt", "no turns", r"\[user\]"),
        ("answers.txt", "[user]\n{% if %}", "answers.txt, line 2"),
        ("answers.txt", "[user]\n{{ 1 / 0 }}", "division by zero; it may use question"),
        ("answers.txt", "[user]\n{{ question + 1 }}", "can only concatenate str"),
        ("anwers.txt", "[user]\nhi", "expected one of topics, questions, answers, rubric"),
    ],
)
def test_a_wrong_prompt_file_is_named(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        load_prompts(tmp_path).render("answers", question="Why?")


@pytest.mark.parametrize(
    ("text", "words"), [("task: x\n", "description"), ("task: [", "not YAML"), ("- 1\n", "holds a list")]
)
def test_a_wrong_preset_names_the_key(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        load_preset(str(path))


def own_preset(**changes: Any) -> str:
    values: dict[str, Any] = {
        "task": "t", "description": "d", "kind": "k", "style": "s", "key_phrases": ["tides"],
        "topic_examples": [{"phrase": "p", "topics": ["a", "b"]}],
        "examples": [{"topic": "a", "question": "Why?", "answer": "So."}],
    }  # fmt: skip
    return json.dumps(values | changes)  # which is YAML, too


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key_phrases": ["tides", " "]}, "a blank would leave a hole"),
        ({"style": ""}, "`style` is '': expected text; a blank"),
        ({"key_phrases": ["tides", "moon", "tides"]}, "'tides' stands twice"),
        ({"examples": [{"topic": "a", "question": "", "answer": "So."}]}, "a blank would leave a hole"),
    ],
)
def test_a_preset_with_holes_or_phrases_that_stand_twice_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(own_preset(**changes), encoding="utf-8")
    with pytest.raises(InputError, match=words):
        load_preset(str(tmp_path / "mine.yaml"))


def test_a_prompt_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "answers.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"answers\.txt can't be read .* expected a file of UTF-8 text"):
        load_prompts(tmp_path)


def test_every_prompt_is_written_once_before_a_model_is_asked(tmp_path: Path) -> None:
    (tmp_path / "rubric.txt").write_text("[user]\n{{ anwser }}", encoding="utf-8")
    with pytest.raises(InputError, match=r"Prompt rubric\.txt: 'anwser' is undefined"):
        check_prompts(load_prompts(tmp_path), load_preset("arc_easy"))


def test_an_unknown_task_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"Unknown task 'arc'.*winogrande"):
        load_preset("arc")

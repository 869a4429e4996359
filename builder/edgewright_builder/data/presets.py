"""What a task's data is about: 20 key phrases, a style, a few worked examples. One YAML file per task."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from edgewright.errors import InputError
from edgewright.file_model import FileModel, checked
from edgewright.yaml_files import parse_mapping, read_mapping

TASKS = (
    "arc_easy",
    "commonsense_qa",
    "hellaswag",
    "mmlu",
    "openbookqa",
    "piqa",
    "social_i_qa",
    "winogrande",
)


def _is_not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("expected text; a blank would leave a hole in a prompt")
    return text


Text = Annotated[str, AfterValidator(_is_not_blank)]


def _are_distinct(phrases: list[str]) -> list[str]:
    for index, phrase in enumerate(phrases):
        if phrase in phrases[:index]:
            raise ValueError(f"{phrase!r} stands twice; remove one, it would be asked about twice as much")
    return phrases


class TopicExample(FileModel):
    """A key phrase and sub-topics of it, to show T1 what is wanted."""

    phrase: Text
    topics: list[Text] = Field(min_length=2)


class Example(FileModel):
    """A sub-topic with a question about it and its answer, to show T1 what is wanted."""

    topic: Text
    question: Text
    answer: Text


class Preset(FileModel):
    """One task's seeds. The prompts use every field but the key phrases as they stand."""

    task: Text
    description: Text  # "easy science questions for ...", after "You write"
    kind: Text  # "easy science question", after "Write one"
    style: Text  # a sentence on how questions look
    key_phrases: Annotated[list[Text], Field(min_length=1), AfterValidator(_are_distinct)]
    topic_examples: list[TopicExample] = Field(min_length=1)
    examples: list[Example] = Field(min_length=1)


def is_preset_file(name: str) -> bool:
    """Whether a preset's name is the path of a file, and no shipped one's."""
    return name.endswith((".yaml", ".yml"))


def load_preset(name: str) -> Preset:
    """Returns a packaged preset by its task's name, or one of your own by the path of its YAML file.

    Raises InputError for an unknown name, an unreadable file, or one with a wrong key or type.
    """
    if name in TASKS:
        packaged = resources.files("edgewright_builder.data") / "presets" / f"{name}.yaml"
        values = parse_mapping(packaged.read_text(encoding="utf-8"), name, "task preset")
    elif is_preset_file(name):
        values = read_mapping(Path(name), "task preset")
    else:
        raise InputError(
            f"Unknown task {name!r}: expected one of {', '.join(TASKS)}, or in `data.preset` a path of a .yaml file."
        )
    return checked(Preset, values, f"The task preset {name}")

"""What a task's data is about: 20 key phrases, a style, a few worked examples. One YAML file per task."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgewright.errors import InputError

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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TopicExample(_Strict):
    """A key phrase and sub-topics of it, to show T1 what is wanted."""

    phrase: str
    topics: list[str] = Field(min_length=2)


class Example(_Strict):
    """A sub-topic with a question about it and its answer, to show T1 what is wanted."""

    topic: str
    question: str
    answer: str


class Preset(_Strict):
    """One task's seeds. The prompts use every field but the key phrases as they stand."""

    task: str
    description: str  # "easy science questions for ...", after "You write"
    kind: str  # "easy science question", after "Write one"
    style: str  # a sentence on how questions look
    key_phrases: list[str] = Field(min_length=1)
    topic_examples: list[TopicExample] = Field(min_length=1)
    examples: list[Example] = Field(min_length=1)


def load_preset(name: str) -> Preset:
    """Returns a packaged preset by its task's name, or one of your own by the path of its YAML file.

    Raises InputError for an unknown name, an unreadable file, or one with a wrong key or type.
    """
    if name in TASKS:
        text = (resources.files("edgewright_builder.data") / "presets" / f"{name}.yaml").read_text(
            encoding="utf-8"
        )
    elif name.endswith((".yaml", ".yml")):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"Task preset {name} cannot be read: {error}. Give the path of a YAML file."
            ) from error
    else:
        raise InputError(
            f"Unknown task {name!r}: expected one of {', '.join(TASKS)}, or in `data.preset` a path of a .yaml file."
        )
    try:
        return Preset.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InputError(
            f"Task preset {name} is not YAML: {' '.join(str(error).split())}. Correct it."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "file"
        raise InputError(
            f"Task preset {name}: {key}: {first['msg']}. Correct it; a packaged preset is a pattern to follow."
        ) from error

"""Prompts in plain text files: one per step, Jinja2 with the turns of the chat marked by lines `[system]`, `[user]`
and `[assistant]`. A folder of the user's own overrides the files it holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from edgewright.errors import InputError
from edgewright_builder.data.data_teacher import Chat
from edgewright_builder.data.presets import Preset

STEPS = ("topics", "questions", "answers", "rubric")
_TURN = re.compile(r"^\[(system|user|assistant)\][ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Prompts:
    """The text of each step's prompt file, by step."""

    texts: dict[str, str]

    @cached_property
    def _templates(self) -> dict[str, jinja2.Template]:
        environment = SandboxedEnvironment(
            undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        templates = {}
        for step, text in self.texts.items():
            try:
                templates[step] = environment.from_string(text)
            except jinja2.TemplateSyntaxError as error:
                raise InputError(
                    f"Prompt {step}.txt, line {error.lineno}: {error.message}. Correct the template."
                ) from error
        return templates

    def render(self, step: str, **values: object) -> Chat:
        """Returns the chat of one prompt. Raises InputError for an unknown variable, and unless the user ends it."""
        try:
            text = self._templates[step].render(**values)
        except Exception as error:  # whatever the template's own sums and calls raise
            raise InputError(
                f"Prompt {step}.txt: {error}; it may use {', '.join(sorted(values))}."
            ) from error
        chat = split_turns(text)
        if not chat or chat[-1]["role"] != "user":
            raise InputError(
                f"Prompt {step}.txt must have turns marked [system], [user], [assistant] and end with [user]."
            )
        return chat


def split_turns(text: str) -> Chat:
    """Returns the turns of a prompt file; what stands before the first mark is ignored."""
    parts = _TURN.split(text)[1:]
    return [
        {"role": role, "content": content.strip()}
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def check_prompts(prompts: Prompts, preset: Preset) -> None:
    """Raises InputError for a prompt that can't be written of this preset, before a model has written anything."""
    phrase, example = preset.key_phrases[0], preset.examples[0]
    prompts.render("topics", preset=preset, phrase=phrase, count=4)
    prompts.render("questions", preset=preset, phrase=phrase, topic=example.topic)
    prompts.render("answers", preset=preset, question=example.question)
    prompts.render("rubric", preset=preset, question=example.question, answer=example.answer)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Prompt {path} can't be read ({error}); expected a file of UTF-8 text.") from None


def load_prompts(override: Path | None = None) -> Prompts:
    """Returns the packaged prompts; `override` is a folder whose `<step>.txt` files go before them.

    Raises InputError if the folder does not exist or holds a .txt file of another name.
    """
    packaged = resources.files("edgewright_builder.data") / "prompts"
    texts = {step: (packaged / f"{step}.txt").read_text(encoding="utf-8") for step in STEPS}
    if override is not None:
        if not override.is_dir():
            raise InputError(
                f"`data.prompts` is {override}, which is no folder. Give one that holds {STEPS[0]}.txt or the like."
            )
        for path in sorted(override.glob("*.txt")):
            if path.stem not in STEPS:
                raise InputError(
                    f"{path}: unknown prompt, expected one of {', '.join(STEPS)} (.txt). Remove it."
                )
            texts[path.stem] = _text(path)
    return Prompts(texts)

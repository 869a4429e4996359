"""Chat templates, rendered as `transformers` does: the same text for the same template and messages.

The names that a template sees are those of transformers 5 (`apply_chat_template`, `utils/chat_template_utils.py`): the
special tokens, `tools` and `documents` (None where there are none), `add_generation_prompt`, `strftime_now`,
`raise_exception`, and a `tojson` that escapes nothing.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta

from edgewright_agent.engine_worker.model.backend import ChatPrompt, InvalidRequestError
from edgewright_agent.engine_worker.model.template_sandbox import TemplateEnvironment

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
# What `apply_chat_template` takes for itself, so that a template never sees another value.
RESERVED = frozenset((
    "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "conversations", "documents",
    "messages", "return_assistant_tokens_mask", "tokenize", "tokenizer_kwargs", "tools",
))  # fmt: skip


class ChatTemplate:
    """One model's template, compiled. One that does not compile refuses every chat; completions are served."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self._environment = environment = TemplateEnvironment()
        environment.add_filter("tojson", _to_json)
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self._special_tokens = dict(special_tokens)
        self._error: jinja2.TemplateError | None = None
        try:
            self._variables = meta.find_undeclared_variables(environment.parse(source))
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            self._error = error

    def render(self, chat: ChatPrompt) -> str:
        """Returns the prompt for the assistant's next turn. Raises InvalidRequestError."""
        self._check(chat)
        names = {**self._special_tokens, **chat.variables}
        self._environment.begin()
        try:
            return self._template.render(
                messages=[_with_reasoning(message) for message in chat.messages],
                tools=None,
                documents=chat.documents,
                add_generation_prompt=True,
                **names,
            )
        except jinja2.TemplateError as error:
            raise InvalidRequestError(f"The chat template refuses these messages: {_brief(error)}.") from None
        except Exception as error:  # noqa: BLE001 - a template may raise whatever Python does
            reason = f"{type(error).__name__}: {_brief(error)}"
            raise InvalidRequestError(f"The chat template can't render these messages: {reason}.") from None

    def _check(self, chat: ChatPrompt) -> None:
        if self._error is not None:
            message = f"This model's chat template does not compile: {_brief(self._error)}."
            raise InvalidRequestError(message)
        if taken := sorted(RESERVED & set(chat.variables)):
            raise InvalidRequestError(
                f"chat_template_kwargs.{taken[0]}: the request has a field of its own for it; give that instead."
            )
        if chat.documents is not None and "documents" not in self._variables:
            raise InvalidRequestError(
                "documents: this model's chat template takes none; leave it out and put them into a message."
            )


def read_chat_template(
    folder: Path, config: Mapping[str, Any], special_tokens: Mapping[str, str]
) -> ChatTemplate | None:
    """Returns the template of a tokenizer's folder; None if the model has none.

    `chat_template.jinja` comes before `tokenizer_config.json`, which may hold several by name: `default` is meant.
    """
    file = folder / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.exists() else config.get("chat_template")
    if isinstance(source, list):
        source = {entry["name"]: entry["template"] for entry in source}.get("default")
    return None if source is None else ChatTemplate(source, special_tokens)


def read_special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the special tokens of a `tokenizer_config.json` by the names that templates know them by.

    Those are all names that end in `_token`, and those that `extra_special_tokens` gives. Older tokenizers keep some
    in `special_tokens_map.json`, which comes first where the configuration lists no added tokens.
    """
    file = folder / "special_tokens_map.json"
    if "added_tokens_decoder" not in config and file.exists():
        config = {**config, **json.loads(file.read_text(encoding="utf-8"))}
    extra = config.get("extra_special_tokens")
    model_specific = config.get("model_specific_special_tokens")
    named = {name: value for name, value in config.items() if name.endswith("_token")}
    for more in (extra, model_specific):
        named |= more if isinstance(more, dict) else {}
    contents = {name: token_content(value) for name, value in named.items()}
    return {name: content for name, content in contents.items() if content is not None}


def token_content(token: Any) -> str | None:
    """Returns a special token's text, which `tokenizer_config.json` spells as text or as an object."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a message's reasoning the names that templates read it by."""
    reasoning = next((message[name] for name in REASONING_FIELDS if message.get(name) is not None), None)
    if reasoning is None:
        return dict(message)
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Sequence[str] | None = None,
    sort_keys: bool = False,
) -> str:
    pair = None if separators is None else (separators[0], separators[1])
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=pair, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)  # local time


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")

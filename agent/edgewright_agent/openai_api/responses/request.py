"""The body of `/v1/responses`: what is obeyed of it, and the chat completion that it becomes."""

from __future__ import annotations

import reprlib
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from edgewright_agent.openai_api.http.errors import ApiError
from edgewright_agent.openai_api.http.json_body import read_json
from edgewright_agent.openai_api.responses.unsupported import (
    IgnoredFields,
    Include,
    Reasoning,
    UnsupportedFields,
    only,
)

_BRANCHES = {"str", "input_text", "output_text", "refusal"}
_shortened = reprlib.Repr()  # at once, however large the value is
_shortened.maxstring = _shortened.maxother = 80
_shortened.maxlevel = 2
VALUES_MAX = 16 * 1024  # thousands of messages
LOGPROBS = "message.output_text.logprobs"


class _Body(BaseModel):
    # Pydantic's own "forbid" makes an error for each of thousands of unknown fields; here the first one is enough.
    model_config = ConfigDict(strict=True, frozen=True, extra="allow", protected_namespaces=())

    @model_validator(mode="after")
    def _know_all_fields(self) -> _Body:
        for name in self.model_extra or ():
            raise PydanticCustomError(
                "unknown_field", "This server does not know this field; leave it out", {"name": name}
            )
        return self


def _of_type(*known: str, default: str | None = None) -> BeforeValidator:
    """Lets objects of these types pass; others are refused by their type, not by the fields that they have or lack."""

    def check(value: object) -> object:
        kind = value.get("type", default) if isinstance(value, dict) else known[0]
        if kind not in known:
            sentence = "This server has text only: {known}"
            raise PydanticCustomError("unsupported_type", sentence, {"known": " or ".join(known)})
        return value

    return BeforeValidator(check)


class TextPart(_Body):
    """A part of a message: the client's text, or text of an earlier answer."""

    type: Literal["input_text", "output_text"]
    text: str
    # An earlier answer comes back as it was sent.
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    prompt_cache_breakpoint: Any = None  # where OpenAI caches: no answer depends on it


class RefusalPart(_Body):
    """A part of an earlier answer of another server, which declined to answer."""

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        """The text, as of other parts."""
        return self.refusal


Part = Annotated[
    Annotated[TextPart | RefusalPart, Field(discriminator="type")],
    _of_type("input_text", "output_text", "refusal"),
]


class Message(_Body):
    """One turn of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Annotated[list[Part], Field(fail_fast=True)]
    # Of an earlier answer that comes back: no answer depends on them.
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    @property
    def as_chat(self) -> dict[str, Any]:
        """The turn as chat completions know it."""
        if isinstance(self.content, str):
            return {"role": self.role, "content": self.content}
        return {"role": self.role, "content": [{"type": "text", "text": part.text} for part in self.content]}


class TextFormat(_Body):
    """Plain text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    value: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None  # a schema is always followed
    description: str | None = None

    @property
    def as_chat(self) -> dict[str, Any]:
        """The format as chat completions know it."""
        if self.type != "json_schema":
            return {"type": self.type}
        schema = {"name": self.name, "schema": self.value, "strict": self.strict}
        return {"type": self.type, "json_schema": schema}


class TextSettings(_Body):
    """What the text of the answer shall be like."""

    format: TextFormat | None = None
    verbosity: Annotated[Any, only("medium")] = None


def _as_messages(value: object) -> object:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class ResponsesRequest(_Body, UnsupportedFields, IgnoredFields):
    """The whole body."""

    model: str | None = None
    input: Annotated[
        list[Annotated[Message, _of_type("message", default="message")]],
        Field(min_length=1, fail_fast=True),
        BeforeValidator(_as_messages),
    ]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None  # None: as many as the context allows
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    text: TextSettings | None = None
    stream: bool | None = None
    include: list[Include] | None = None
    metadata: dict[str, str] | None = None  # sent back
    reasoning: Reasoning | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer shall hold the log-probability of each token."""
        return LOGPROBS in (self.include or ()) or self.top_logprobs is not None

    @property
    def format(self) -> TextFormat:
        """The format of the answer's text."""
        return (self.text and self.text.format) or TextFormat(type="text")

    def as_chat(self) -> dict[str, Any]:
        """Returns the body of the chat completion that answers this."""
        messages = [message.as_chat for message in self.input]
        if self.instructions is not None:
            messages.insert(0, {"role": "developer", "content": self.instructions})
        settings = {
            "model": self.model,
            "max_completion_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "response_format": None if self.format.type == "text" else self.format.as_chat,
            "logprobs": self.wants_logprobs or None,
            "top_logprobs": self.top_logprobs,
            "stream": self.stream,
            "stream_options": {"include_usage": True} if self.stream else None,
        }
        return {"messages": messages} | {name: value for name, value in settings.items() if value is not None}


def parse_request(body: bytes) -> ResponsesRequest:
    """Returns the request in a body. Raises ApiError that names the wrong field."""
    try:
        return read_json(ResponsesRequest, body, VALUES_MAX)
    except ValidationError as error:
        # Of a union's branches, the one that got furthest is the one that was meant.
        raise _invalid(max(error.errors(include_url=False), key=lambda wrong: len(_path(wrong)))) from None


def _invalid(wrong: ErrorDetails) -> ApiError:
    path, message = _path(wrong), wrong["msg"]
    if wrong["type"] == "unknown_field":
        path.append(wrong["ctx"]["name"][:100])
    else:
        message += f", not {_shortened.repr(wrong['input'])}"
    field = ".".join(path) or "the body"
    return ApiError(HTTPStatus.BAD_REQUEST, "invalid_value", f"{field}: {message}.", param=field)


def _path(wrong: ErrorDetails) -> list[str]:
    """Returns where the wrong value is, without the names of a union's branches that pydantic puts between."""
    parts = [str(part) for part in wrong["loc"]]
    return [part for part in parts if part.replace("_", "a").isalnum() and part not in _BRANCHES]

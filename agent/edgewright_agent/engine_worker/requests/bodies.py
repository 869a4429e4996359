"""Request bodies: OpenAI's names, vLLM's extensions (`ignore_eos`, `return_token_ids`), and the agent's private ones.

A field that would change the answer is obeyed or refused by name, never ignored: see `fields`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from edgewright_agent.engine_worker.model.backend import ChatPrompt, InvalidRequestError, SamplingSettings
from edgewright_agent.engine_worker.model.grammar import ANY_OBJECT
from edgewright_agent.engine_worker.requests.fields import (
    HarmlessFields,
    Ignored,
    NeutralFields,
    NeutralMessageFields,
)

SEEDS = 2**64
_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = _shorten.maxlong = 80
_shorten.maxlevel = 2


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", protected_namespaces=())


Stop = Annotated[str, Field(min_length=1, max_length=200)]


def _as_list(value: object) -> object:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def _the_only_one(value: object) -> object:
    """Takes the one prompt out of a list of one. OpenAI takes several at once; this engine does not."""
    if isinstance(value, list) and value and isinstance(value[0], str | list):
        if len(value) > 1:
            raise PydanticCustomError("several_prompts", "This engine takes one prompt a request; send one")
        return value[0]
    return value


class StreamOptions(_Body):
    """`include_usage` adds a last chunk with the counts."""

    include_usage: bool = False
    include_obfuscation: Ignored = None  # random characters against whoever listens to encrypted traffic


class JsonSchema(_Body):
    """A schema and its name. It is always followed to the letter, so that `strict` changes nothing."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    value: Annotated[dict[str, Any], Field(alias="schema")] = {}
    strict: bool | None = None
    description: Ignored = None  # for a model that reads it; here the grammar says it all


class ResponseFormat(_Body):
    """Text, any JSON object, or JSON of a schema. llama-server takes a schema with `json_object` too."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    value: Annotated[dict[str, Any] | None, Field(alias="schema")] = None

    @model_validator(mode="after")
    def _schema_is_there(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is needed for, and only for, the type json_schema")
        if self.value is not None and self.type != "json_object":
            raise ValueError("schema is for the type json_object; json_schema has its own")
        return self

    @property
    def schema_to_follow(self) -> Mapping[str, Any] | None:
        """The JSON schema of the answer; None for text."""
        if self.json_schema is not None:
            return self.json_schema.value
        return self.value or ANY_OBJECT if self.type == "json_object" else None


class SamplingBody(_Body, NeutralFields, HarmlessFields):
    """What completions and chat completions have in common."""

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None  # None: as many as the context allows
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: Annotated[list[Stop], Field(fail_fast=True, max_length=8), BeforeValidator(_as_list)] = []
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    return_token_ids: bool | None = None
    response_format: ResponseFormat | None = None

    @property
    def sampling(self) -> SamplingSettings:
        """OpenAI's defaults: temperature 1, top-p 1, a new seed each time."""
        return SamplingSettings(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=None if self.seed is None else self.seed % SEEDS,
        )

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with the counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionBody(SamplingBody):
    """`/v1/completions`. The prompt is text, or the tokens themselves."""

    prompt: Annotated[
        Annotated[str, Field(min_length=1)] | Annotated[list[int], Field(fail_fast=True, min_length=1)],
        BeforeValidator(_the_only_one),
    ]
    max_tokens: Annotated[int, Field(ge=1)] | None = 16  # OpenAI's default
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None  # how many alternatives to each token

    @property
    def alternatives(self) -> int | None:
        """Alternatives to report beside each token's log-probability; None: report none at all."""
        return self.logprobs


class ContentPart(_Body):
    """One part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(_Body, NeutralMessageFields):
    """One message."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[ContentPart], Field(fail_fast=True)]
    name: str | None = None  # the speaker's
    reasoning_content: str | None = None  # before the content, of an assistant that thought
    reasoning: str | None = None
    thinking: str | None = None

    @property
    def text(self) -> str:
        """The content as one string; parts are kept apart by a new line."""
        return self.content if isinstance(self.content, str) else "\n".join(p.text for p in self.content)

    @property
    def for_template(self) -> dict[str, str]:
        """The message as chat templates know it: OpenAI's `developer` is their `system`."""
        role = "system" if self.role == "developer" else self.role
        optional = {
            name: value
            for name in ("name", "reasoning_content", "reasoning", "thinking")
            if (value := getattr(self, name)) is not None
        }
        return {"role": role, "content": self.text, **optional}


class ChatBody(SamplingBody):
    """`/v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    documents: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> ChatBody:
        newer, older = self.max_completion_tokens, self.max_tokens
        if newer is not None and older is not None and newer != older:
            raise ValueError(f"max_completion_tokens is {newer} and max_tokens {older}; give one of them")
        return self

    @model_validator(mode="after")
    def _alternatives_to_something(self) -> ChatBody:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def alternatives(self) -> int | None:
        """Alternatives to report beside each token's log-probability; None: report none at all."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def chat(self) -> ChatPrompt:
        """What the chat template gets."""
        messages = [message.for_template for message in self.messages]
        return ChatPrompt(messages, self.documents, self.chat_template_kwargs or {})


class ScoreItemBody(_Body):
    """A context and what may follow it."""

    context: str
    continuations: Annotated[
        list[Annotated[str, Field(min_length=1)]], Field(fail_fast=True, min_length=1, max_length=64)
    ]


class ScoreBody(_Body):
    """`/v1/score`, private to the agent."""

    items: Annotated[list[ScoreItemBody], Field(fail_fast=True, max_length=256)]


class AdapterBody(_Body):
    """`/v1/adapter`, private to the agent."""

    file: str | None  # None: the model alone
    model: Annotated[str, Field(min_length=1)]  # its name in the API from now on


BodyType = TypeVar("BodyType", bound=_Body)


def parse_body(kind: type[BodyType], data: bytes | bytearray) -> BodyType:
    """Returns the body in `data`; raises InvalidRequestError that names the first wrong field."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = _most_specific(error)
        where = ".".join(str(part) for part in first["loc"] if not _is_tag(part))[:200] or "the body"
        if first["type"] == "extra_forbidden":
            raise InvalidRequestError(f"{where}: {_unknown(where)}.") from None
        if first["type"] == "value_error":  # of several fields together
            raise InvalidRequestError(f"{where}: {first['msg'].removeprefix('Value error, ')}.") from None
        raise InvalidRequestError(f"{where}: {first['msg']}, not {_shorten.repr(first['input'])}.") from None


def _most_specific(error: ValidationError) -> ErrorDetails:
    """Returns the error that lies deepest in the first wrong field: of a union, each kind has its own errors."""
    errors = error.errors(include_url=False)
    return max(
        (one for one in errors if one["loc"][:1] == errors[0]["loc"][:1]), key=lambda one: len(one["loc"])
    )


def _unknown(name: str) -> str:
    remedy = "leave it out"
    if "." not in name:  # of the body itself
        remedy += ", or put it into chat_template_kwargs if it is for the chat template"
    return f"This engine does not know this field; {remedy}"


def _is_tag(part: object) -> bool:
    """Whether pydantic names a branch of a union here, not a field."""
    return isinstance(part, str) and (part == "str" or not part.replace("_", "a").isalnum())

"""Request bodies: OpenAI's names, vLLM's extensions (`ignore_eos`, `return_token_ids`), and `/v1/score`.

A field that would change the answer and is not supported is refused, never ignored: see `unsupported`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from edgewright_agent.engine_worker.backend import InvalidRequestError, SamplingSettings
from edgewright_agent.engine_worker.http.unsupported import NoneOfThem, NotHere, UnsupportedFields
from edgewright_agent.engine_worker.model.grammar import ANY_OBJECT

SEEDS = 2**64


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", protected_namespaces=())


Stop = Annotated[str, Field(min_length=1, max_length=200)]


def _as_list(value: object) -> object:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def _the_only_one(value: object) -> object:
    """OpenAI takes several prompts at once; of one in a list it is clear which is meant."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        return value[0]
    return value


class StreamOptions(_Body):
    """`include_usage` adds a last chunk with the counts."""

    include_usage: bool = False


class JsonSchema(_Body):
    """A schema and its name. It is always followed to the letter, so that `strict` changes nothing."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    value: Annotated[dict[str, Any], Field(alias="schema")] = {}
    strict: bool | None = None


class ResponseFormat(_Body):
    """Text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_is_there(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is needed for, and only for, the type json_schema")
        return self

    @property
    def schema_to_follow(self) -> Mapping[str, Any] | None:
        """The JSON schema of the answer; None for text."""
        if self.json_schema is not None:
            return self.json_schema.value
        return ANY_OBJECT if self.type == "json_object" else None


class SamplingBody(_Body, UnsupportedFields):
    """What completions and chat completions have in common."""

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None  # None: as many as the context allows
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: Annotated[list[Stop], BeforeValidator(_as_list), Field(max_length=8)] = []
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
        Annotated[str, Field(min_length=1)] | Annotated[list[int], Field(min_length=1)],
        BeforeValidator(_the_only_one),
    ]
    max_tokens: Annotated[int, Field(ge=1)] | None = 16  # OpenAI's default
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None  # how many alternatives to each token

    @property
    def alternatives(self) -> int | None:
        """Alternatives to report beside each token's log-probability; None: report none at all."""
        return self.logprobs


class TextPart(_Body):
    """One part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(_Body):
    """One message."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    # Chat templates here know of neither.
    name: NotHere = None
    tool_calls: NoneOfThem = None

    @property
    def template_role(self) -> str:
        """The role as chat templates know it: OpenAI's `developer` is their `system`."""
        return "system" if self.role == "developer" else self.role

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(p.text for p in self.content)


class ChatBody(SamplingBody):
    """`/v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _alternatives_to_something(self) -> ChatBody:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def alternatives(self) -> int | None:
        """Alternatives to report beside each token's log-probability; None: report none at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


class ScoreItemBody(_Body):
    """A context and what may follow it."""

    context: str
    continuations: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=64)]


class ScoreBody(_Body):
    """`/v1/score`, private to the agent."""

    items: Annotated[list[ScoreItemBody], Field(max_length=256)]


class AdapterBody(_Body):
    """`/v1/adapter`, private to the agent."""

    file: str | None  # None: the model alone
    model: Annotated[str, Field(min_length=1)]  # its name in the API from now on


BodyType = TypeVar("BodyType", bound=_Body)


def parse_body(kind: type[BodyType], data: bytes) -> BodyType:
    """The body in `data`; raises InvalidRequestError that names the first wrong field."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"] if not _is_tag(part)) or "the body"
        raise InvalidRequestError(f"{where}: {first['msg']}, not {_short(first['input'])}.") from None


def _is_tag(part: object) -> bool:
    """Whether pydantic names a branch of a union here, not a field."""
    return isinstance(part, str) and not part.replace("_", "a").isalnum()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"

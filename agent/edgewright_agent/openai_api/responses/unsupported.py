"""Fields of the Responses API that ask for what is not here: left out, null or neutral they pass, else are refused.

`request` has the fields that are obeyed. `IgnoredFields` below lists those that are ignored, and why.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


def only(*neutral: object, remedy: str | None = None) -> AfterValidator:
    """Lets null and the neutral values pass. The engine's worker has a twin, since it imports nothing of the agent."""
    values = " or ".join(json.dumps(value) for value in neutral)
    advice = remedy or (f"leave it out or give {values}" if neutral else "leave it out")

    def check(value: object) -> object:
        if value is not None and value not in neutral:
            raise PydanticCustomError(
                "unsupported", "This server does not have it; {advice}", {"advice": advice}
            )
        return value

    return AfterValidator(check)


NotHere = Annotated[Any, only()]
_RESEND = "send the whole conversation as `input`"


class UnsupportedFields(BaseModel):
    """What this server lacks."""

    model_config = ConfigDict(frozen=True)

    background: Annotated[Any, only(False)] = None
    context_management: Annotated[Any, only([])] = None
    conversation: Annotated[Any, only(remedy=_RESEND)] = None
    image: NotHere = None
    moderation: NotHere = None
    previous_response_id: Annotated[Any, only(remedy=_RESEND)] = None
    prompt: NotHere = None
    store: Annotated[Any, only(False, remedy="no answer is kept; leave it out or give false")] = None
    tool_choice: Annotated[Any, only("none", "auto")] = None  # both choose none where there is none
    tools: Annotated[Any, only([])] = None
    truncation: Annotated[
        Any, only("disabled", remedy='shorten `input`, and leave it out or give "disabled"')
    ] = None


class IgnoredFields(BaseModel):
    """What changes no answer here. Values are not looked at, unless they are sent back."""

    model_config = ConfigDict(frozen=True)

    # Whom an answer is for, and how OpenAI groups its caches and its bills: nothing here depends on it.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    service_tier: str | None = None
    # Without tools there are no calls to limit.
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    # OpenAI pads its streams against listeners; here TLS or the machine itself keeps them out.
    stream_options: Any = None


class Reasoning(BaseModel):
    """How to reason: this server's models do not do it apart from their answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    effort: Annotated[Any, only("none")] = None
    mode: Annotated[Any, only("standard")] = None
    # There is no reasoning to keep or to sum up.
    context: Any = None
    generate_summary: Any = None
    summary: Any = None


# Additions to items that never occur here, but for the last one.
Include = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]

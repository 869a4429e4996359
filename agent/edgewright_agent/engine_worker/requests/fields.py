"""Fields of OpenAI's, vLLM's and llama-server's APIs beyond those that this engine obeys.

`NeutralFields` change the answer, and this engine does not have them. Left out, null or neutral they pass; anything
else is refused by name, so that no client believes it was obeyed. `HarmlessFields` change no answer, and are ignored.
Fields in neither list are unknown, and refused by name too.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


def _only(*neutral: object) -> AfterValidator:
    """Lets null and the neutral values pass."""
    values = " or ".join(json.dumps(value) for value in neutral)
    remedy = f"leave it out or give {values}" if neutral else "leave it out"

    def check(value: object) -> object:
        if value is not None and value not in neutral:
            raise PydanticCustomError(
                "unsupported", "This engine does not have it; {remedy}", {"remedy": remedy}
            )
        return value

    return AfterValidator(check)


def _nothing(_: object) -> None:
    """Drops a value that nobody looks at."""


Ignored = Annotated[Any, AfterValidator(_nothing)]
_Absent = Annotated[Any, _only()]
_Zero = Annotated[Any, _only(0)]
_One = Annotated[Any, _only(1)]
_False = Annotated[Any, _only(False)]
_True = Annotated[Any, _only(True)]
_EmptyList = Annotated[Any, _only([])]
_EmptyObject = Annotated[Any, _only({})]
_EmptyText = Annotated[Any, _only("")]
_NoTool = Annotated[Any, _only("none", "auto")]  # both choose none where there is none


class HarmlessFields(BaseModel):
    """Fields that change no answer."""

    model_config = ConfigDict(frozen=True)

    # OpenAI: whom a request is for, what is kept of it, what it costs
    metadata: Ignored = None
    parallel_tool_calls: Ignored = None  # there are no tools
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    safety_identifier: Ignored = None
    service_tier: Ignored = None
    store: Ignored = None
    user: Ignored = None
    # vLLM
    cache_salt: Ignored = None
    priority: Ignored = None
    request_id: Ignored = None
    # llama-server: its cache gives the same answers, only sooner
    cache_prompt: Ignored = None
    id_slot: Ignored = None


class NeutralMessageFields(BaseModel):
    """The base of chat messages. Chat templates here get no tools, so that no message can have called one."""

    model_config = ConfigDict(frozen=True)

    annotations: _EmptyList = None
    audio: _Absent = None
    function_call: _Absent = None
    refusal: _Absent = None
    tool_call_id: _Absent = None
    tool_calls: _EmptyList = None


class NeutralFields(BaseModel):
    """The base of all bodies that ask for text."""

    model_config = ConfigDict(frozen=True)

    # OpenAI
    audio: _Absent = None
    best_of: _One = None
    echo: _False = None
    frequency_penalty: _Zero = None
    function_call: _NoTool = None
    functions: _EmptyList = None
    logit_bias: _EmptyObject = None
    modalities: Annotated[Any, _only(["text"])] = None
    n: _One = None
    prediction: _Absent = None
    presence_penalty: _Zero = None
    reasoning_effort: Annotated[Any, _only("none")] = None
    suffix: _EmptyText = None
    tool_choice: _NoTool = None
    tools: _EmptyList = None
    verbosity: Annotated[Any, _only("medium")] = None
    web_search_options: _Absent = None
    # vLLM
    add_generation_prompt: _True = None
    add_special_tokens: _Absent = None  # the prompt's BOS is the tokenizer's own business
    allowed_token_ids: _EmptyList = None
    bad_words: _EmptyList = None
    chat_template: _Absent = None
    continue_final_message: _False = None
    guided_choice: _Absent = None
    guided_grammar: _Absent = None
    guided_json: _Absent = None
    guided_regex: _Absent = None
    include_stop_str_in_output: _False = None
    length_penalty: _One = None
    min_p: _Zero = None
    min_tokens: _Zero = None
    prompt_embeds: _Absent = None
    prompt_logprobs: _Absent = None
    repetition_penalty: _One = None
    skip_special_tokens: _True = None
    stop_token_ids: _EmptyList = None
    structured_outputs: _Absent = None
    thinking_token_budget: _Absent = None
    top_k: Annotated[Any, _only(0, -1)] = None
    truncate_prompt_tokens: _Absent = None
    use_beam_search: _False = None
    # llama-server
    dry_multiplier: _Zero = None
    dynatemp_range: _Zero = None
    grammar: _EmptyText = None
    json_schema: _Absent = None
    mirostat: _Zero = None
    n_predict: _Absent = None  # `max_tokens` says it
    repeat_penalty: _One = None
    samplers: _Absent = None
    top_n_sigma: Annotated[Any, _only(-1)] = None
    typical_p: _One = None
    xtc_probability: _Zero = None

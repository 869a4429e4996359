"""Fields of OpenAI's, vLLM's and llama-server's APIs that change the answer and that this engine does not have.

Left out, null or neutral they pass; anything else is refused by name, so that no client believes it was obeyed.
Fields that change no answer (`user`, `metadata`, `store`, `service_tier`) are not listed and are ignored.
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
            sentence = "This engine does not have it; {remedy}"
            raise PydanticCustomError("unsupported", sentence, {"remedy": remedy})
        return value

    return AfterValidator(check)


NotHere = Annotated[Any, _only()]
_Zero = Annotated[Any, _only(0)]
_One = Annotated[Any, _only(1)]
_No = Annotated[Any, _only(False)]
_Yes = Annotated[Any, _only(True)]
NoneOfThem = Annotated[Any, _only([])]
_EmptyObject = Annotated[Any, _only({})]
_EmptyText = Annotated[Any, _only("")]
_NoTool = Annotated[Any, _only("none", "auto")]  # both choose none where there is none


class UnsupportedFields(BaseModel):
    """The base of all bodies that ask for text."""

    model_config = ConfigDict(frozen=True)

    # OpenAI
    audio: NotHere = None
    best_of: _One = None
    echo: _No = None
    frequency_penalty: _Zero = None
    function_call: _NoTool = None
    functions: NoneOfThem = None
    logit_bias: _EmptyObject = None
    modalities: Annotated[Any, _only(["text"])] = None
    n: _One = None
    prediction: NotHere = None
    presence_penalty: _Zero = None
    reasoning_effort: Annotated[Any, _only("none")] = None
    suffix: _EmptyText = None
    tool_choice: _NoTool = None
    tools: NoneOfThem = None
    verbosity: Annotated[Any, _only("medium")] = None
    web_search_options: NotHere = None
    # vLLM
    add_generation_prompt: _Yes = None
    add_special_tokens: NotHere = None  # the prompt's BOS is the tokenizer's own business
    allowed_token_ids: NoneOfThem = None
    bad_words: NoneOfThem = None
    chat_template: NotHere = None
    chat_template_kwargs: _EmptyObject = None
    continue_final_message: _No = None
    guided_choice: NotHere = None
    guided_grammar: NotHere = None
    guided_json: NotHere = None
    guided_regex: NotHere = None
    include_stop_str_in_output: _No = None
    length_penalty: _One = None
    min_p: _Zero = None
    min_tokens: _Zero = None
    prompt_embeds: NotHere = None
    prompt_logprobs: NotHere = None
    repetition_penalty: _One = None
    skip_special_tokens: _Yes = None
    stop_token_ids: NoneOfThem = None
    structured_outputs: NotHere = None
    thinking_token_budget: NotHere = None
    top_k: Annotated[Any, _only(0, -1)] = None
    truncate_prompt_tokens: NotHere = None
    use_beam_search: _No = None
    # llama-server
    dry_multiplier: _Zero = None
    dynatemp_range: _Zero = None
    grammar: _EmptyText = None
    json_schema: NotHere = None
    mirostat: _Zero = None
    n_predict: NotHere = None  # `max_tokens` says it
    repeat_penalty: _One = None
    samplers: NotHere = None
    top_n_sigma: Annotated[Any, _only(-1)] = None
    typical_p: _One = None
    xtc_probability: _Zero = None

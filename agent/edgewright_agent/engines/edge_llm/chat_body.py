"""Requests as TensorRT Edge-LLM 0.11 takes them: its one text route is a chat (`experimental/server/api/protocol.py`).

A prompt is a chat of one message whose template is left out. Every default is set, as the server's own are not
OpenAI's: temperature 0.7, top_p 0.9, top_k 50, 2,048 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgewright_agent.engines.http.openai_fields import WrongFieldError
from edgewright_agent.engines.protocol.requests import GenerationRequest

LOGPROBS_MAX = 50  # the server's own limit
TEMPERATURE_MAX = 2.0
NEVER = -100.0  # the lowest logit bias
EXTENSIONS = ("ignore_eos", "return_token_ids")  # of our worker, which the server forbids
REFUSED = ("echo", "best_of", "suffix", "logit_bias")


@dataclass(frozen=True)
class TextEnds:
    """How the model's texts begin and end."""

    bos: str  # to put before a prompt; "" where the tokenizer adds none
    end_tokens: tuple[int, ...]

    def prompt(self, text: str) -> str:
        """Returns a prompt with the BOS that its tokenizer would add: the server encodes text without."""
        return text if text.startswith(self.bos) else self.bos + text

    def never_ending(self) -> dict[str, float]:
        """Returns the bias with which no text ends by itself."""
        return {str(token): NEVER for token in self.end_tokens}


def chat_body(request: GenerationRequest, model: str, texts: TextEnds, context_tokens: int) -> dict[str, Any]:
    """Returns the body of a request that streams and names its tokens, which only log-probabilities do."""
    if request.prompt is not None:
        content = _as_is(texts.prompt(request.prompt))
    else:
        content = {"messages": [dict(message) for message in request.messages or ()]}
    body = {
        **content,
        "model": model,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": -1,
        "max_tokens": request.max_tokens
        or context_tokens,  # more than there is room for is cut by the server
        "stop": list(request.stop),
        "logprobs": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.seed is not None:
        body["seed"] = request.seed % 2**64
    return body | ({"logit_bias": texts.never_ending()} if request.ignore_eos else {})


def chat_fields(fields: dict[str, Any], texts: TextEnds, context_tokens: int) -> dict[str, Any]:
    """Returns the fields of OpenAI's chat as the server gets them."""
    defaults = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "max_tokens": context_tokens}
    if "max_completion_tokens" in fields:
        del defaults["max_tokens"]
    sent = defaults | {name: value for name, value in fields.items() if name not in EXTENSIONS}
    if fields.get("ignore_eos"):
        sent["logit_bias"] = texts.never_ending()
    if isinstance(fields.get("seed"), int):
        sent["seed"] = fields["seed"] % 2**64
    if fields.get("logprobs") or fields.get("return_token_ids"):
        # A drawn token that is not among those asked for would come without its log-probability.
        sent |= {"logprobs": True, "top_logprobs": LOGPROBS_MAX}
    return sent


def completion_fields(fields: dict[str, Any], texts: TextEnds, default_tokens: int) -> dict[str, Any]:
    """Returns the fields of OpenAI's completion as those of a chat. Raises WrongFieldError for what it can't be."""
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise WrongFieldError("TensorRT Edge-LLM completes one text; prompt must be one, and not empty.")
    for name in REFUSED:
        if fields.get(name):
            raise WrongFieldError(f"TensorRT Edge-LLM knows no {name} here; leave it out.")
    kept = {name: value for name, value in fields.items() if name not in ("prompt", "logprobs", *REFUSED)}
    asked = {"logprobs": True} if "logprobs" in fields else {}
    return {"max_tokens": default_tokens} | kept | asked | _as_is(texts.prompt(prompt))


def tokens_of(choice: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """Returns the steps of a choice: each has token_id, logprob and top_logprobs."""
    return (choice.get("logprobs") or {}).get("content") or ()


def _as_is(prompt: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"messages": messages, "apply_chat_template": False, "add_generation_prompt": False}

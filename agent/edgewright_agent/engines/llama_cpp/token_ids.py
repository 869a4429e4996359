"""OpenAI's completion with `return_token_ids`, which llama-server's OpenAI routes lack, from its own /completion."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from edgewright_agent.engines.http.openai_fields import openai_logprobs
from edgewright_agent.engines.llama_cpp.completion import finish_of

NATIVE_ROUTE = "/completion"


def native_body(fields: dict[str, Any], prompt: list[int]) -> dict[str, Any]:
    """Returns the body for the server's own route, where most fields have the same names."""
    same = {name: value for name, value in fields.items() if name not in ("model", "logprobs", "max_tokens")}
    return same | {
        "prompt": prompt,
        "n_predict": fields["max_tokens"],
        "n_probs": fields.get("logprobs", 0),
        "return_tokens": True,
    }


def completion_of(answer: dict[str, Any], model: str) -> bytes:
    """Returns OpenAI's completion for the answer of the server's own route."""
    tokens = [int(token) for token in answer["tokens"]]
    finish = finish_of(answer, int(answer["tokens_predicted"]))
    told = answer.get("completion_probabilities")
    choice = {
        "index": 0,
        "text": answer["content"],
        "token_ids": tokens,
        "finish_reason": finish.reason,
        "logprobs": None if told is None else openai_logprobs(_aligned(tokens, told), 0)[0],
    }
    usage = {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.generated_tokens,
        "total_tokens": finish.prompt_tokens + finish.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": answer["timings"]["cache_n"]},
    }
    whole = {
        "id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()),
        "model": model, "choices": [choice], "usage": usage,
    }  # fmt: skip
    return json.dumps(whole).encode()


def _aligned(tokens: Sequence[int], told: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns an entry per token. The server tells nothing of one that ends inside a character: its entry is empty."""
    entries, rest = [], list(told)
    for token in tokens:
        known = bool(rest) and rest[0]["id"] == token
        entries.append(rest.pop(0) if known else {"token": "", "logprob": None, "top_logprobs": []})
    return entries

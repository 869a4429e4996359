"""The server's answers as OpenAI has them: log-probabilities, and completions, for which it has no route."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from edgewright_agent.engines.edge_llm.chat_body import tokens_of
from edgewright_agent.engines.http.openai_fields import COMPLETIONS, WrongFieldError, openai_logprobs
from edgewright_agent.engines.http.request_checks import context_exceeded
from edgewright_agent.engines.http.reshape import reshaped
from edgewright_agent.engines.protocol.requests import Reply

UNLIKELY = -9999.0  # OpenAI's log-probability of a token outside the list
_TOO_LONG = re.compile(r"EDGELLM_INPUT_TOO_LONG: input length (\d+) exceeds")


def tokens_too_many(message: str) -> int | None:
    """Returns the length of a prompt that the server finds too long; None if it complains of something else."""
    match = _TOO_LONG.search(message)
    return None if match is None else int(match[1])


@dataclass(frozen=True)
class AnswerShape:
    """What a client asked for, and gets."""

    route: str
    logprobs: int | None  # alternatives to each token; None: no log-probabilities
    token_ids: bool
    context_tokens: int
    max_tokens: int  # 0: all that there is room for

    @classmethod
    def of(cls, route: str, fields: dict[str, Any], context_tokens: int) -> AnswerShape:
        """Returns what the fields of a request ask for."""
        if route == COMPLETIONS:
            logprobs = fields.get("logprobs")
        else:
            logprobs = fields.get("top_logprobs", 0) if fields.get("logprobs") else None
        asked = fields.get("max_completion_tokens") or fields.get("max_tokens") or 0
        return cls(route, logprobs, bool(fields.get("return_token_ids")), context_tokens, asked)

    def put_right(self, reply: Reply) -> Reply:
        """Returns the reply in this shape."""
        if reply.status == HTTPStatus.OK:
            return reshaped(reply, self._shaped)
        headers = {name: value for name, value in reply.headers.items() if name != "content-length"}
        return Reply(reply.status, headers, self._error(reply))

    async def _error(self, reply: Reply) -> AsyncGenerator[bytes, None]:
        body = await reply.read()
        try:
            yield json.dumps(self._told(json.loads(body))).encode()
        except (ValueError, KeyError, TypeError):
            yield body

    def _told(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Returns an error in OpenAI's words where the server has its own."""
        long = tokens_too_many(str(answer["error"]["message"]))
        if long is None:
            return answer
        error = context_exceeded(long, max(1, self.max_tokens), self.context_tokens)
        return WrongFieldError(str(error), "context_length_exceeded").content

    def _shaped(self, answer: dict[str, Any], offset: int) -> tuple[dict[str, Any], int]:
        """Returns an answer or a chunk of one, and where in the text the next one begins."""
        if "error" in answer:
            return self._told(answer), offset
        for choice in answer["choices"]:
            steps = [_step(step, self.logprobs or 0) for step in tokens_of(choice)]
            if self.token_ids:
                choice["token_ids"] = [step.pop("token_id") for step in steps]
            choice["logprobs"] = {"content": steps} if steps and self.logprobs is not None else None
            if self.route == COMPLETIONS:
                offset = _as_completion(choice, steps if self.logprobs is not None else [], offset)
        if self.route == COMPLETIONS:
            answer["object"] = "text_completion"
            answer["id"] = str(answer["id"]).replace("chatcmpl-", "cmpl-")
        return answer, offset


def _step(step: dict[str, Any], most: int) -> dict[str, Any]:
    """Returns a token with as many alternatives as were asked for, and a log-probability in any case."""
    logprob = UNLIKELY if step.get("logprob") is None else step["logprob"]
    return {**step, "logprob": logprob, "top_logprobs": step.get("top_logprobs", [])[:most]}


def _as_completion(choice: dict[str, Any], steps: list[dict[str, Any]], offset: int) -> int:
    """Turns a chat's choice into a completion's; returns where in the text the next one begins."""
    message = choice.pop("message", None) or choice.pop("delta", None) or {}
    choice["text"] = message.get("content") or ""
    if steps:
        choice["logprobs"], offset = openai_logprobs(steps, offset)
    return offset

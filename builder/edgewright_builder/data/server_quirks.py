"""What a chat server takes: fields of a request that it refuses are renamed or left out from then on.

A system turn that it refuses begins the first question instead, as with a local T1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgewright_builder.data.data_teacher import without_system

# Fields that an answer can be had without, in the order in which they are given up.
OPTIONAL = ("seed", "stop", "top_p", "temperature")
THOUGHT_TOKENS = (
    2048  # room for thoughts: reasoning models of a few billion parameters need some hundred a question
)
_REFUSAL = re.compile(
    r"support|unrecogni[sz]ed|unknown|unexpected|extra|permitted|allowed|forbidden|invalid|cannot|can't|deprecated",
    re.IGNORECASE,
)
# What Gemma 2's template, Gemini's API and Mistral 7B's template say to a system turn.
_SYSTEM_REFUSAL = re.compile(
    r"system (role|message|turn|prompt|instruction)|developer instruction|roles must alternate", re.IGNORECASE
)


@dataclass
class Dialect:
    """What was learned of a server while it was asked."""

    left_out: set[str] = field(default_factory=set)
    limit_name: str = "max_tokens"
    thinks: bool = False
    joins_system: bool = False  # what a system turn says begins the first question

    def body(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the request as this server takes it."""
        body = {name: value for name, value in request.items() if name not in self.left_out}
        limit = body.pop("max_tokens")
        if self.thinks:
            body.pop("stop", None)  # it would end the thoughts; the answer is cut here
            limit += THOUGHT_TOKENS
        if self.joins_system:
            body["messages"] = without_system(body["messages"])
        return body | {self.limit_name: limit}

    def learn(self, sent: Mapping[str, Any], refusal: str) -> str | None:
        """Takes up what a refusal of the body `sent` says.

        Returns None where nothing can be changed, else a sentence on what changes, empty if that was known.
        """
        name = _refused_field(sent, refusal)
        if name is None:
            return self._learn_system(sent, refusal)
        if name == "max_tokens":
            known = self.limit_name != "max_tokens"
            self.limit_name = "max_completion_tokens"
            return "" if known else "T1 takes `max_completion_tokens` instead of `max_tokens`"
        known = name in self.left_out
        self.left_out.add(name)
        cost = ": its answers can't be repeated" if name == "seed" else ""
        return "" if known else f"T1 refuses `{name}`, which is left out from now on{cost}"

    def _learn_system(self, sent: Mapping[str, Any], refusal: str) -> str | None:
        chat = sent["messages"]
        helps = chat[0]["role"] == "system" and without_system(chat)[0]["role"] != "system"
        if not helps or not _SYSTEM_REFUSAL.search(refusal):
            return None
        known = self.joins_system
        self.joins_system = True
        return "" if known else "T1 refuses a system turn: what it says begins the first question from now on"


def _refused_field(sent: Mapping[str, Any], refusal: str) -> str | None:
    named = _named(refusal)
    candidates = [name for name in ("max_tokens", *OPTIONAL) if name in sent]
    if named in candidates:
        return named
    if not _REFUSAL.search(refusal):
        return None
    return next((name for name in candidates if re.search(rf"\b{name}\b", refusal)), None)


def _named(refusal: str) -> str | None:
    """Returns the field that OpenAI's error names."""
    try:
        return str(json.loads(refusal)["error"]["param"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None

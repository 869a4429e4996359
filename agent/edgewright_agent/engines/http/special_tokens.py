"""BOS and EOS of a tokenizer as text, and how lm-evaluation-harness splits a context from its continuation."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

Tokenize = Callable[
    [str, bool], Awaitable[list[int]]
]  # of a text, with the tokens that the tokenizer adds or without


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that begin and end a text; "" where the tokenizer has none."""

    bos: str
    eos: str

    @classmethod
    def of(cls, tokenizer: Path) -> SpecialTokens:
        """Returns those of a tokenizer's folder, which spells them as text or as objects."""
        config = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
        values = (config.get(name) or "" for name in ("bos_token", "eos_token"))
        bos, eos = (value["content"] if isinstance(value, dict) else value for value in values)
        return cls(bos, eos)

    def may_add(self, text: str) -> bool:
        """Whether the tokenizer may add its BOS: a text that begins with it does not get another."""
        return not (self.bos and text.startswith(self.bos))

    async def split(
        self, context: str, continuation: str, tokens_of: Tokenize
    ) -> tuple[list[int], list[int]]:
        """Splits as the worker's `split_tokens`, which says why."""
        if not context.rstrip():
            tokens = await tokens_of(context + continuation, False)
            prefix = (await tokens_of(self.bos or self.eos, False))[0]
            return ([prefix], tokens) if tokens[0] != prefix else (tokens[:1], tokens[1:])
        kept, whole = context.rstrip(), context + continuation
        head = await tokens_of(kept, self.may_add(kept))
        return head, (await tokens_of(whole, self.may_add(whole)))[len(head) :]

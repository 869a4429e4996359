"""JSON output: tokens that would leave the grammar are ruled out before one is drawn.

llguidance does the work. It takes some 40 MiB, so it is imported at the first request that needs it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_agent.engine_worker.backend import InvalidRequestError, Logits, Text

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
# Small models, free to write blanks between tokens, may write nothing else until their last token.
JSON_OPTIONS: Any = {"whitespace_flexible": False}


class Grammar:
    """Where one text stands in its grammar."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        from llguidance import numpy as bitmasks

        self._matcher, self._bitmasks = matcher, bitmasks
        self._mask: NDArray[np.int32] = bitmasks.allocate_token_bitmask(1, vocab_size)

    def masked(self, row: Logits) -> Logits:
        """A copy of the logits with −∞ for what may not come next."""
        self._bitmasks.fill_next_token_bitmask(self._matcher, self._mask)
        self._check()
        allowed = row[None].copy()
        self._bitmasks.apply_token_bitmask_inplace(allowed, self._mask)
        only: Logits = allowed[0]
        return only

    def accept(self, token: int) -> bool:
        """Goes on by `token`; whether the text is whole and nothing more may come."""
        self._matcher.consume_token(token)
        self._check()
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise RuntimeError(f"the JSON grammar gave up: {_brief(self._matcher.get_error())}")


class GrammarMaker:
    """Grammars for one model's tokens. Safe to call from several threads."""

    def __init__(self, text: Text, vocab_size: int, eos_ids: frozenset[int]) -> None:
        self._text, self._vocab_size, self._eos_ids = text, vocab_size, eos_ids
        self._lock = threading.Lock()
        self._tokens: Any = None

    def make(self, schema: Mapping[str, Any]) -> Grammar:
        """The grammar of a JSON schema's values; raises InvalidRequestError if it is none that can be followed."""
        try:
            from llguidance import LLMatcher
        except ImportError:
            message = "JSON output needs llguidance, which is not installed: pip install 'edgewright[onnx]'."
            raise InvalidRequestError(message) from None
        with self._lock:
            if self._tokens is None:
                self._tokens = self._read_tokens()
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=JSON_OPTIONS)
        matcher = LLMatcher(self._tokens, grammar, log_level=0)
        if matcher.is_error():
            reason = _brief(matcher.get_error())
            raise InvalidRequestError(f"response_format: this JSON schema can't be followed: {reason}.")
        return Grammar(matcher, self._vocab_size)

    def _read_tokens(self) -> Any:
        from llguidance import LLTokenizer, TokenizerWrapper

        tokens = TokenizerWrapper(_Tokens(self._text, self._vocab_size, min(self._eos_ids)))
        return LLTokenizer(tokens, n_vocab=self._vocab_size, eos_token=sorted(self._eos_ids))


class _Tokens:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, text: Text, vocab_size: int, eos_id: int) -> None:
        self._text = text
        self.eos_token_id = eos_id
        self.tokens = [text.token_bytes(token) for token in range(vocab_size)]
        self.special_token_ids = sorted(text.special_ids)

    def __call__(self, text: str) -> list[int]:
        return self._text.encode(text, special=False)


def _brief(message: str) -> str:
    return " ".join(message.split())[:300].rstrip(".")

"""JSON output: tokens that would leave the grammar are ruled out before one is drawn.

llguidance does the work. It takes 20 to 80 MiB, so it is imported at the first request that needs it, if there is room.
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
# Measured for 49 k and 128 k tokens: 430 bytes a token, and the library. Not in the predicted peak of a release.
NEEDED_BYTES, NEEDED_BYTES_PER_TOKEN = 8 * 1024 * 1024, 450


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
    """Grammars for one model's tokens. Safe to call from several threads.

    `spare_bytes`: what they may take; an engine over its memory budget would be ended. None: as much as they need.
    """

    def __init__(
        self, text: Text, vocab_size: int, eos_ids: frozenset[int], spare_bytes: int | None = None
    ) -> None:
        self._text, self._vocab_size, self._eos_ids = text, vocab_size, eos_ids
        self._spare_bytes = spare_bytes
        self._lock = threading.Lock()
        self._tokens: Any = None

    def make(self, schema: Mapping[str, Any]) -> Grammar:
        """The grammar of a JSON schema's values; raises InvalidRequestError if none can be followed, or none fits."""
        self._check_room()
        try:
            from llguidance import LLMatcher
        except ImportError:
            message = "JSON output needs llguidance, which is not installed: pip install 'edgewright[onnx]'."
            raise InvalidRequestError(message) from None
        with self._lock:
            if self._tokens is None:
                self._tokens = self._read_tokens()
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=JSON_OPTIONS)
        except ValueError as error:  # nested too deeply, for one
            raise _not_followed(str(error)) from None
        matcher = LLMatcher(self._tokens, grammar, log_level=0)
        if matcher.is_error():
            raise _not_followed(matcher.get_error())
        return Grammar(matcher, self._vocab_size)

    def _check_room(self) -> None:
        needed_bytes = NEEDED_BYTES + NEEDED_BYTES_PER_TOKEN * self._vocab_size
        if self._spare_bytes is not None and needed_bytes > self._spare_bytes:
            message = (
                f"JSON output would take {needed_bytes / 2**20:.1f} MiB more than this model's predicted peak, which "
                f"leaves {self._spare_bytes / 2**20:.1f} MiB of the board's budget; raise the budget or serve a "
                "smaller model."
            )
            raise InvalidRequestError(message)

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


def _not_followed(reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"response_format: this JSON schema can't be followed: {_brief(reason)}.")


def _brief(message: str) -> str:
    return " ".join(message.split())[:300].rstrip(".")

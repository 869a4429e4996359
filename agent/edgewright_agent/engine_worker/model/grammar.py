"""JSON output: tokens that would leave the grammar are ruled out before one is drawn.

llguidance does the work. It takes 20 to 80 MiB, most of it for the vocabulary, so it is imported at the first request
that needs it, if there is room. What a schema may take is bounded: by its size before it is compiled, and by
llguidance's own limits while it is compiled and followed.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_agent.engine_worker.model.backend import InvalidRequestError, Logits, Text

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
# Small models, free to write blanks between tokens, may write nothing else until their last token.
JSON_OPTIONS: Any = {"whitespace_flexible": False}
# Measured for 49 k and 128 k tokens: 430 bytes a token, and the library. Not in the predicted peak of a release.
NEEDED_BYTES, NEEDED_BYTES_PER_TOKEN = 8 * 1024 * 1024, 450
SCHEMA_BYTES_MAX = 120_000  # OpenAI's own limit on all names and values of a schema
SCHEMA_VALUES_MAX = 6_000  # OpenAI allows 5,000 properties and 1,000 values of enumerations
# llguidance's defaults let the states of one regular expression grow to 90 MiB, and a step take 0.1 s. With these the
# largest schemas that pass `SCHEMA_VALUES_MAX` compile, and none that was tried took more than 8 MiB.
PARSER_LIMITS: Mapping[str, Any] = {"max_lexer_states": 20_000, "step_lexer_fuel": 100_000}


FAILED_SECONDS = 60.0  # so long a schema that could not be followed is refused without another try
PARSER_STATE = "<state>"
FAILED_MAX = 256
Refuse = Callable[[str], InvalidRequestError]  # makes the error from the reason


class Grammar:
    """One text's position in its grammar. `refuse` is told why the schema can't be followed."""

    def __init__(self, matcher: Any, vocab_size: int, refuse: Refuse) -> None:
        from llguidance import numpy as bitmasks

        self._matcher, self._bitmasks, self._refuse = matcher, bitmasks, refuse
        self._mask: NDArray[np.int32] = bitmasks.allocate_token_bitmask(1, vocab_size)
        self._is_filled = False

    def begin(self) -> None:
        """Finds out which tokens may come first. Raises InvalidRequestError if none may."""
        self._fill()
        if not self._mask.any():
            raise self._refuse("no text satisfies it")

    def masked(self, row: Logits) -> Logits:
        """Returns a copy of the logits with −∞ for what may not come next. Raises InvalidRequestError."""
        if not self._is_filled:
            self._fill()
        self._is_filled = False
        allowed = row[None].copy()
        self._bitmasks.apply_token_bitmask_inplace(allowed, self._mask)
        only: Logits = allowed[0]
        return only

    def accept(self, token: int) -> bool:
        """Goes on by `token`. Returns whether the text is whole and nothing more may come."""
        self._matcher.consume_token(token)
        self._check()
        return bool(self._matcher.is_stopped())

    def _fill(self) -> None:
        self._bitmasks.fill_next_token_bitmask(self._matcher, self._mask)
        self._check()
        self._is_filled = True

    def _check(self) -> None:
        if self._matcher.is_error():
            raise self._refuse(self._matcher.get_error())


class FailedSchemas:
    """Schemas that could not be followed lately: to find that out again would cost other requests their time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[str, tuple[float, str]] = {}  # by digest: until when, and why

    def check(self, source: str) -> Refuse:
        """Returns what is to be told why the schema fails, if it does. Raises InvalidRequestError if it just did."""
        digest = hashlib.sha256(source.encode()).hexdigest()
        until_seconds, reason = self._failed.get(digest, (0.0, ""))
        if self._clock() < until_seconds:
            raise _not_followed(reason)

        def refuse(reason: str) -> InvalidRequestError:
            if len(self._failed) >= FAILED_MAX:
                self._failed.clear()
            self._failed[digest] = self._clock() + FAILED_SECONDS, _brief(reason)
            return _not_followed(reason)

        return refuse


class GrammarMaker:
    """Grammars for one model's tokens. Safe to call from several threads.

    `spare_bytes`: what they may take; an engine over its memory budget would be ended. None: as much as they need.
    """

    def __init__(
        self, text: Text, vocab_size: int, eos_ids: frozenset[int], spare_bytes: int | None = None
    ) -> None:
        self._text, self._vocab_size, self._eos_ids = text, vocab_size, eos_ids
        self._spare_bytes = spare_bytes
        self._failed = FailedSchemas()
        self._lock = threading.Lock()
        self._tokens: Any = None

    def make(self, schema: Mapping[str, Any]) -> Grammar:
        """Returns the grammar of a JSON schema's values. Raises InvalidRequestError if it can't be followed here."""
        self._check_room()
        source = _checked(schema)
        refuse = self._failed.check(source)
        try:
            from llguidance import LLMatcher, LLParserLimits
        except ImportError:
            message = "JSON output needs llguidance, which is not installed: pip install 'edgewright[onnx]'."
            raise InvalidRequestError(message) from None
        with self._lock:
            if self._tokens is None:
                self._tokens = self._read_tokens()
            try:
                grammar = LLMatcher.grammar_from_json_schema(source, overrides=JSON_OPTIONS)
            except ValueError as error:  # nested too deeply, for one
                raise refuse(str(error)) from None
            matcher = LLMatcher(self._tokens, grammar, log_level=0, limits=LLParserLimits(**PARSER_LIMITS))
            if matcher.is_error():
                raise refuse(matcher.get_error())
            made = Grammar(matcher, self._vocab_size, refuse)
            made.begin()
            return made

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


def _checked(schema: Mapping[str, Any]) -> str:
    """Returns the schema as JSON. Raises InvalidRequestError for one that is too large to compile."""
    source = json.dumps(schema)
    if len(source) > SCHEMA_BYTES_MAX:
        raise _not_followed(f"it has {len(source)} bytes; at most {SCHEMA_BYTES_MAX} are accepted")
    values = _count_values(schema)
    if values > SCHEMA_VALUES_MAX:
        raise _not_followed(f"it holds {values} values; at most {SCHEMA_VALUES_MAX} are accepted")
    return source


def _count_values(value: Any) -> int:
    """Returns the number of values in a JSON value, itself counted. The parser has bounded how deep it is."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return 1 + sum(map(_count_values, inner))


def _not_followed(reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"response_format: this JSON schema can't be followed: {_brief(reason)}.")


def _brief(message: str) -> str:
    """Returns the library's reason on one line. In place of a reason it may print its parser's state."""
    if PARSER_STATE in message:
        return "it allows no text at all, or refers to itself without end"
    return " ".join(message.split())[:300].rstrip(".")

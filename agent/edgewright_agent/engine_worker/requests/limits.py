"""What one request may take, known when the engine starts and checked before the work is done.

A prompt's text is bounded twice. By the context: more bytes than its tokens can stand for never fit. And by memory:
tokenizing takes up to `TOKENIZER_BYTES_PER_BYTE` of it, which comes out of what the plan counts for reading a slice of
a prompt (`Backend.slice_bytes`); the two are never in memory at once (see `batching.turns`).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgewright_agent.engine_worker.model.backend import Backend, InvalidRequestError
from edgewright_agent.engine_worker.requests.sizes import in_words

# Measured with tokenizers 0.23 (`encode_batch_fast`) on text that is worst for it: 112 for byte fallback, 100 for emoji
# in byte-level BPE, 60 for English. Tokens as Python integers add to that.
TOKENIZER_BYTES_PER_BYTE = 128
TEXT_BYTES_MIN = 16 * 1024  # of a prompt that any model takes, if its context does: 2 MiB to tokenize
BODY_BYTES_MAX = 4 * 1024 * 1024  # as the agent's HTTP server
BODY_BYTES_BESIDE_PROMPT = 256 * 1024  # JSON schema, stop strings, names
ESCAPED_BYTES_PER_BYTE = 3  # JSON in ASCII writes é in 6 bytes instead of 2
BODY_BYTES_PER_TOKEN = 10  # of a prompt that is given as tokens: digits, a comma, a blank
JSON_VALUES_BESIDE_TOKENS = 8192  # of a body: each takes up to 1 KiB while it is checked


@dataclass(frozen=True)
class RequestLimits:
    """Bounds for one model in one plan."""

    context_tokens: int
    longest_token_bytes: int
    text_bytes: int  # of one prompt
    body_bytes: int  # of one HTTP body
    json_values: int  # in one body, those in others included

    @property
    def bodies_bytes(self) -> int:
        """The most bytes of all bodies that are read or prepared at the same time."""
        return max(2 * self.body_bytes, BODY_BYTES_MAX // 2)

    def check_text(self, text: str) -> None:
        """Raises InvalidRequestError (`context_length_exceeded`) for a prompt that can't fit."""
        if len(text) <= self.text_bytes // 4:  # a character has four bytes at most
            return
        size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        if size <= self.text_bytes:
            return
        if self.text_bytes == self.context_tokens * self.longest_token_bytes:
            why = f"a context of {self.context_tokens} tokens of up to {self.longest_token_bytes} bytes holds no more"
        else:
            why = f"tokenizing takes {TOKENIZER_BYTES_PER_BYTE} times as much, and the plan has room for no more"
        most = in_words(self.text_bytes)
        message = f"The prompt has {in_words(size)}; at most {most} are accepted: {why}. Shorten it."
        raise InvalidRequestError(message, "context_length_exceeded")

    def check_values(self, count: int) -> None:
        """Raises InvalidRequestError for a body of more values than are parsed."""
        if count > self.json_values:
            raise InvalidRequestError(
                f"The body holds more than {self.json_values} JSON values, each object, array and member counted; "
                "send fewer messages, tokens or schema entries.",
                "body_too_large",
                413,
            )


def limits_of(backend: Backend) -> RequestLimits:
    """Returns the bounds for a loaded model."""
    context_tokens, longest = backend.context_tokens, backend.text.longest_token_bytes
    by_memory = max(TEXT_BYTES_MIN, backend.slice_bytes // TOKENIZER_BYTES_PER_BYTE)
    text_bytes = min(context_tokens * longest, by_memory)
    body_bytes = (
        ESCAPED_BYTES_PER_BYTE * text_bytes + BODY_BYTES_PER_TOKEN * context_tokens + BODY_BYTES_BESIDE_PROMPT
    )
    return RequestLimits(
        context_tokens=context_tokens,
        longest_token_bytes=longest,
        text_bytes=text_bytes,
        body_bytes=min(body_bytes, BODY_BYTES_MAX),
        json_values=JSON_VALUES_BESIDE_TOKENS + context_tokens,
    )

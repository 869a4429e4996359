"""A Backend without a model: deterministic text, and any misbehaviour a test asks for.

Tokens are UTF-8 bytes. `fake.json` in the engine's folder holds a `FakeBehaviour`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright_agent.engine_worker.model.backend import (
    CachePlace,
    ChatPrompt,
    InvalidRequestError,
    Logits,
    layout_of,
)

EOS = 256
LETTERS = b" abcdefghijklmnopqrstuvwxyz"
FOREVER_SECONDS = 1e6
LOOK_SECONDS = 0.01  # between two looks for a file
WORDS = ("board", "rail", "watt", "token", "cache", "layer", "größe", "café", "kW電力", "chunk", "store")


@dataclass(frozen=True)
class FakeBehaviour:
    """How the fake engine behaves, and what goes wrong."""

    salt: str = ""  # another salt, another model: golden tokens differ
    start_seconds: float = 0.0
    starts_once_exists: str = ""  # the name of a file in the folder for temporary files
    never_ready: bool = False
    crash_on_start: str = ""  # what it says before it exits with code 3
    crash_after_tokens: int | None = None  # since the start of the process
    crash_signal: int = 9
    fail_after_tokens: int | None = None  # an error of the engine, which goes on living
    hang_after_tokens: int | None = None  # since the start of the process
    token_seconds: float = 0.0  # generated
    prompt_token_seconds: float = 0.0  # read
    allocate_mib: int = 0
    words: int = 12  # of a text, before the end-of-sequence token


@dataclass
class _Held:
    """What a row of the cache holds."""

    tokens: list[int]
    prompt_tokens: int


class FakeText:
    """A tokenizer whose tokens are UTF-8 bytes."""

    prefix_id = EOS
    longest_token_bytes = 1
    special_ids = frozenset({EOS})

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Returns the bytes of `text`."""
        return list(text.encode())

    def chat(self, chat: ChatPrompt) -> str:
        """Returns one line per message."""
        lines = (f"{message['role']}: {message['content']}\n" for message in chat.messages)
        return "".join(lines) + "assistant: "

    def token_bytes(self, token: int) -> bytes:
        """Returns the byte."""
        return b"<end>" if token == EOS else bytes([token])

    def decoder(self) -> Callable[[int], str]:
        """Returns a function that gives each character with its last byte."""
        held = bytearray()

        def step(token: int) -> str:
            if token != EOS:
                held.append(token)
            try:
                text = held.decode()
            except UnicodeDecodeError:
                return ""
            held.clear()
            return text

        return step


class FakeBackend:
    """Text that follows from the prompt by hashing."""

    vocab_size = 257
    eos_ids = frozenset({EOS})
    slice_tokens = 64
    slice_bytes = 16 * 1024 * 1024

    def __init__(self, engine_folder: Path, context_tokens: int, concurrency: int = 1) -> None:
        file = engine_folder / "fake.json"
        settings = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        self.behaviour = FakeBehaviour(**settings)
        self.context_tokens = context_tokens
        self.layout = layout_of(context_tokens)
        self.pool_tokens = self.layout.pool_tokens(concurrency)
        self.text = FakeText()
        self.adapter: str | None = None
        self._held: dict[CachePlace, _Held] = {}
        self._generated = 0
        self._ballast = bytearray(os.urandom(1) * (self.behaviour.allocate_mib << 20))
        self._misbehave_on_start()

    def _misbehave_on_start(self) -> None:
        if self.behaviour.crash_on_start:
            print(self.behaviour.crash_on_start, flush=True)  # noqa: T201
            raise SystemExit(3)
        time.sleep(FOREVER_SECONDS if self.behaviour.never_ready else self.behaviour.start_seconds)
        awaited = Path(tempfile.gettempdir()) / self.behaviour.starts_once_exists
        while not awaited.exists():
            time.sleep(LOOK_SECONDS)

    def use_adapter(self, file: Path | None) -> None:
        """Writes other words: the adapter's bytes are a salt. A file that begins with `broken` is no adapter."""
        content = b"" if file is None else file.read_bytes()
        if content.startswith(b"broken"):
            raise InvalidRequestError(f"{file} is no adapter of this model.", "adapter_mismatch")
        self.adapter = content.hex() or None

    def read(self, place: CachePlace, past: int, tokens: Sequence[int], adapter: Hashable) -> Logits:
        """Computes each position as if the prompt ended there."""
        time.sleep(self.behaviour.prompt_token_seconds * len(tokens))
        kept = self._held[place].tokens[:past] if past else []
        assert len(kept) == past, f"{place} holds {len(kept)} tokens, not {past}"
        self._held[place] = held = _Held([*kept, *tokens], past + len(tokens))
        salt = f"{self.behaviour.salt}{adapter or ''}"
        rows = []
        for end in range(past + 1, len(held.tokens) + 1):
            history = held.tokens[:end]
            rows.append(_logits(history, next(fake_tokens(history, salt, self.behaviour.words)), salt))
        return np.array(rows, np.float32)

    def step(
        self, places: Sequence[CachePlace], pasts: Sequence[int], tokens: Sequence[int], adapter: Hashable
    ) -> Logits:
        """Writes the words that follow the prompt; sequences of one step share its time."""
        time.sleep(self.behaviour.token_seconds)
        salt = f"{self.behaviour.salt}{adapter or ''}"
        rows = []
        for place, past, token in zip(places, pasts, tokens, strict=True):
            self._misbehave_on_token()
            held = self._held[place]
            assert len(held.tokens) == past, f"{place} holds {len(held.tokens)} tokens, not {past}"
            held.tokens.append(token)
            prompt, generated = held.tokens[: held.prompt_tokens], past + 1 - held.prompt_tokens
            stream = fake_tokens(prompt, salt, self.behaviour.words)
            rows.append(_logits(held.tokens, next(itertools.islice(stream, generated, None)), salt))
        return np.array(rows, np.float32)

    def copy(self, source: CachePlace, target: CachePlace, tokens: int) -> None:
        """Copies as a real cache would."""
        held = self._held[source]
        self._held[target] = _Held(held.tokens[:tokens], min(tokens, held.prompt_tokens))

    def _misbehave_on_token(self) -> None:
        if self._generated == self.behaviour.crash_after_tokens:
            os.kill(os.getpid(), self.behaviour.crash_signal)
        if self._generated == self.behaviour.hang_after_tokens:
            time.sleep(FOREVER_SECONDS)
        if self._generated == self.behaviour.fail_after_tokens:
            raise RuntimeError("the fake engine was told to fail")
        self._generated += 1


def _logits(history: Sequence[int], likeliest: int, salt: str) -> list[float]:
    """Returns logits: one token is likeliest, letters and the end of the text are likely, anything is possible."""
    noise = _digest(bytes_of(history), salt)
    row = [-12.0] * (EOS + 1)
    for index, token in enumerate(LETTERS):
        row[token] = noise[index] / 128
    row[EOS], row[likeliest] = 1.0, 3.0
    return row


def fake_tokens(prompt: Sequence[int], salt: str = "", words: int = 12) -> Iterator[int]:
    """Yields the endless text after `prompt`, with an EOS after every `words` words."""
    key = _digest(bytes_of(prompt), salt)
    for number in itertools.count():
        index = _digest(key, str(number))[0] % len(WORDS)
        yield from f"{WORDS[index]} ".encode()
        if number % words == words - 1:
            yield EOS


def bytes_of(tokens: Sequence[int]) -> bytes:
    """Returns tokens as bytes; EOS becomes 0."""
    return bytes(token % 256 for token in tokens)


def _digest(data: bytes, salt: str) -> bytes:
    return hashlib.sha256(data + b"\0" + salt.encode()).digest()

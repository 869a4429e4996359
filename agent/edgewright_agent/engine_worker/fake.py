"""A Backend without a model: deterministic text, and any misbehaviour a test asks for.

Tokens are UTF-8 bytes. `fake.json` in the engine's folder holds a `FakeBehaviour`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright_agent.engine_worker.backend import InvalidRequestError, Sampling, TokenScores

EOS = 256
FOREVER_SECONDS = 1e6
WORDS = ("board", "rail", "watt", "token", "cache", "layer", "größe", "café", "kW電力", "chunk", "store")


@dataclass(frozen=True)
class FakeBehaviour:
    """What goes wrong."""

    salt: str = ""  # another salt, another model: golden tokens differ
    start_seconds: float = 0.0
    never_ready: bool = False
    crash_on_start: str = ""  # what it says before it exits with code 3
    crash_after_tokens: int | None = None  # since the start of the process
    crash_signal: int = 9
    fail_after_tokens: int | None = None  # an error of the engine, which goes on living
    token_seconds: float = 0.0
    allocate_mib: int = 0
    words: int = 12  # of a text, before the end-of-sequence token


class FakeText:
    """UTF-8."""

    prefix_id = EOS

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Bytes of `text`."""
        return list(text.encode())

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """One line per message."""
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages) + "assistant: "

    def decoder(self) -> Callable[[int], str]:
        """Characters, each with its last byte."""
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

    def __init__(self, engine_folder: Path, context_tokens: int) -> None:
        file = engine_folder / "fake.json"
        settings = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        self.behaviour = FakeBehaviour(**settings)
        self.context_tokens = context_tokens
        self.text = FakeText()
        self._adapter_salt = ""
        self._generated = 0
        self._ballast = bytearray(os.urandom(1) * (self.behaviour.allocate_mib << 20))
        self._misbehave_on_start()

    def _misbehave_on_start(self) -> None:
        if self.behaviour.crash_on_start:
            print(self.behaviour.crash_on_start, flush=True)  # noqa: T201
            raise SystemExit(3)
        time.sleep(FOREVER_SECONDS if self.behaviour.never_ready else self.behaviour.start_seconds)

    def use_adapter(self, file: Path | None) -> None:
        """Other words: the adapter's bytes are a salt. A file that begins with `broken` is no adapter."""
        content = b"" if file is None else file.read_bytes()
        if content.startswith(b"broken"):
            raise InvalidRequestError(f"{file} is no adapter of this model.", "adapter_mismatch")
        self._adapter_salt = content.hex()

    @property
    def _salt(self) -> str:
        return self.behaviour.salt + self._adapter_salt

    def generate(self, prompt: Sequence[int], max_tokens: int, sampling: Sampling) -> Iterator[int | None]:
        """Bytes of hashed words."""
        yield None
        choice = ""
        if sampling.temperature > 0:
            choice = str(random.SystemRandom().random() if sampling.seed is None else sampling.seed)
        stream = fake_tokens(prompt, self._salt + choice, self.behaviour.words)
        for token in itertools.islice(stream, max_tokens):
            self._misbehave_on_token()
            yield token

    def _misbehave_on_token(self) -> None:
        time.sleep(self.behaviour.token_seconds)
        if self._generated == self.behaviour.crash_after_tokens:
            os.kill(os.getpid(), self.behaviour.crash_signal)
        if self._generated == self.behaviour.fail_after_tokens:
            raise RuntimeError("the fake engine was told to fail")
        self._generated += 1

    def score(
        self, context: Sequence[int], continuations: Sequence[Sequence[int]]
    ) -> Iterator[TokenScores | None]:
        """−1 − h for each byte, with h in [0, 1) from a hash of all that precedes it."""
        yield None
        for continuation in continuations:
            total = 0.0
            for end in range(len(continuation)):
                digest = _digest(bytes_of([*context, *continuation[: end + 1]]), self._salt)
                total -= 1 + digest[0] / 256
            greedy = list(itertools.islice(fake_tokens(context, self._salt), len(continuation)))
            yield TokenScores(total, len(continuation), greedy == list(continuation))


def fake_tokens(prompt: Sequence[int], salt: str = "", words: int = 12) -> Iterator[int]:
    """The endless text after `prompt`: an EOS after every `words` words."""
    key = _digest(bytes_of(prompt), salt)
    for number in itertools.count():
        index = _digest(key, str(number))[0] % len(WORDS)
        yield from f"{WORDS[index]} ".encode()
        if number % words == words - 1:
            yield EOS


def bytes_of(tokens: Sequence[int]) -> bytes:
    """Tokens as bytes; EOS becomes 0."""
    return bytes(token % 256 for token in tokens)


def _digest(data: bytes, salt: str) -> bytes:
    return hashlib.sha256(data + b"\0" + salt.encode()).digest()

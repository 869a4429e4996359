"""The artifact's own tokenizer and chat template, as in training: ONNX Runtime GenAI's own may differ."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from edgewright_agent.engine_worker.model.backend import ChatPrompt, InvalidRequestError
from edgewright_agent.engine_worker.model.chat_template import read_chat_template, read_special_tokens

BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")  # SentencePiece's byte fallback


def _byte_alphabet() -> dict[str, int]:
    """Returns the characters that byte-level BPE writes bytes as: printable Latin-1, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


BYTE_OF = _byte_alphabet()


class ModelText:
    """`tokenizer.json`, `tokenizer_config.json` and the chat template of a folder."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        config = _read_json(folder / "tokenizer_config.json")
        self._special = read_special_tokens(folder, config)
        self._template = read_chat_template(folder, config, self._special)
        added = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(token for token, entry in added.items() if entry.special)
        self._added = {token: str(entry.content).encode() for token, entry in added.items()}
        self._byte_level = "ByteLevel" in str(self._tokenizer.decoder)
        vocabulary = range(self._tokenizer.get_vocab_size(with_added_tokens=True))
        self.longest_token_bytes = max(len(self.token_bytes(token)) for token in vocabulary)

    @property
    def prefix_id(self) -> int:
        """BOS if the model has one, else EOS (lm-evaluation-harness's `prefix_token_id`).

        Raises InvalidRequestError where the tokenizer names neither.
        """
        named = self._special.get("bos_token") or self._special.get("eos_token")
        token = None if named is None else self._tokenizer.token_to_id(named)
        if token is None:
            raise InvalidRequestError(
                "This model's tokenizer names neither a first nor a last token, which would stand for an empty "
                "context; give a context."
            )
        return int(token)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """See `Text`. A BOS that the text already begins with is not added again.

        `encode_batch_fast` releases the interpreter lock, which `encode` keeps, and takes half its memory.
        """
        bos = self._special.get("bos_token")
        add = special and not (bos and text.startswith(bos))
        try:
            return list(self._tokenizer.encode_batch_fast([text], add_special_tokens=add)[0].ids)
        except BaseException as error:
            if not _is_of_the_library(error):
                raise
            raise InvalidRequestError(f"The tokenizer can't read this text: {_brief(error)}.") from None

    def chat(self, chat: ChatPrompt) -> str:
        """See `Text`."""
        if self._template is None:
            raise InvalidRequestError("This model has no chat template; send a prompt to /v1/completions.")
        return self._template.render(chat)

    def token_bytes(self, token: int) -> bytes:
        """Returns what the token stands for; a special token's name. Empty beyond the tokenizer's vocabulary."""
        if token in self._added:
            return self._added[token]
        piece = self._tokenizer.id_to_token(token) or ""
        if self._byte_level and all(character in BYTE_OF for character in piece):
            return bytes(BYTE_OF[character] for character in piece)
        if BYTE_PIECE.fullmatch(piece):
            return bytes([int(piece[3:5], 16)])
        return str(piece).replace("▁", " ").encode()

    def decoder(self) -> Callable[[int], str]:
        """See `Text`."""
        stream = DecodeStream(skip_special_tokens=True)

        def text_of(token: int) -> str:
            nonlocal stream
            try:
                return stream.step(self._tokenizer, token) or ""
            except Exception:  # noqa: BLE001 - the library has no type for it
                # A byte that makes no character: byte fallback then takes back the characters before it, too.
                stream = self._stream_within_text()
                return "\ufffd" + (stream.step(self._tokenizer, token) or "")

        return text_of

    def _stream_within_text(self) -> Any:
        """Returns a stream that has begun: at the beginning of a text, some decoders leave out a blank."""
        stream = DecodeStream(skip_special_tokens=True)
        for token in self.encode("a", special=False):
            stream.step(self._tokenizer, token)
        return stream


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def _is_of_the_library(error: BaseException) -> bool:
    """Whether the tokenizer raised it. Its panics are no Exceptions: a regular expression that gives up is one."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")

"""A tokenizer's tokens as the bytes of text they stand for, whatever their notation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
WORD_START = "▁"  # SentencePiece writes a space so


@dataclass(frozen=True)
class Vocabulary:
    """A fast tokenizer with what each of its tokens stands for."""

    tokenizer: Tokenizer
    names: dict[int, str]  # token id → the token as the tokenizer's file writes it
    special: frozenset[int]  # tokens that stand for no text, such as the end of a turn

    @cached_property
    def texts(self) -> dict[int, bytes]:
        """Token id → the bytes of text it adds; special tokens are left out."""
        read = _byte_level if self._is_byte_level else _sentencepiece
        added = self.tokenizer.get_added_tokens_decoder()
        return {
            token: name.encode() if token in added else read(name)
            for token, name in self.names.items()
            if token not in self.special
        }

    @cached_property
    def written(self) -> frozenset[bytes]:
        """Every text that is a token."""
        return frozenset(self.texts.values())

    @cached_property
    def _is_byte_level(self) -> bool:
        """Whether tokens are written in the alphabet of GPT-2's bytes."""
        parts = (self.tokenizer.decoder, self.tokenizer.pre_tokenizer)
        return any(b'"ByteLevel"' in part.__getstate__() for part in parts if part is not None)

    @cached_property
    def prefix(self) -> bytes:
        """What the tokenizer puts before every text by itself: a space in some of SentencePiece's, else nothing."""
        return self._written(self.encode("a").ids)[: -len(b"a")]

    def encode(self, text: str) -> Encoding:
        """Returns the encoding of `text` without any special tokens around it."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def token_ends(self, text: str, encoding: Encoding) -> list[int | None]:
        """Returns for each token the byte of `text` it ends before; None for one that ends inside a character.

        Read from the tokens' own bytes, or from the tokenizer's offsets where a normalizer changed the text.
        """
        data, written = text.encode(), self._written(encoding.ids)
        added = len(written) - len(data)
        if written.endswith(data) and written[:added] in (b"", self.prefix):
            ends, end = [], -added
            for token in encoding.ids:
                end += len(self._piece(token))
                ends.append(max(end, 0))
            return list(ends)
        return _ends_by_offset(text, encoding.offsets)

    def first_piece(self, texts: Sequence[bytes]) -> list[bytes | None]:
        """Returns the first token's text of each text as the tokenizer cuts it; None where it can't be cut alone."""
        strings = [self._bare(text) for text in texts]
        encodings = self.tokenizer.encode_batch([text or "" for text in strings], add_special_tokens=False)
        pieces: list[bytes | None] = []
        for text, string, encoding in zip(texts, strings, encodings, strict=True):
            whole = string is not None and self._written(encoding.ids) == text
            pieces.append(next((self._piece(token) for token in encoding.ids), None) if whole else None)
        return pieces

    def _bare(self, text: bytes) -> str | None:
        """Returns what must be encoded so that the tokens stand for exactly `text`; None if nothing does."""
        if not text.startswith(self.prefix):
            return None
        try:
            return text[len(self.prefix) :].decode()
        except UnicodeDecodeError:
            return None

    def _written(self, tokens: Sequence[int]) -> bytes:
        return b"".join(map(self._piece, tokens))

    def _piece(self, token: int) -> bytes:
        """Returns the token's text; a special token stands for its own name, as in a rendered chat template."""
        return self.texts[token] if token in self.texts else self.names[token].encode()


def vocabulary_of(tokenizer: Any, name: str) -> Vocabulary:
    """Returns the vocabulary of a tokenizer as transformers loads it. Raises InputError where it is not a fast one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"{name} has no fast tokenizer (tokenizer.json), which the alignment of two vocabularies needs; choose "
            "another model, or convert it with `AutoTokenizer.from_pretrained(…).save_pretrained(…)`."
        )
    return _vocabulary(backend)


def read_vocabulary(folder: Path) -> Vocabulary:
    """Returns the vocabulary in a model's folder, without importing transformers. Raises InputError without one."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            f"{folder} has no fast tokenizer (tokenizer.json), which the alignment of two vocabularies needs; choose "
            "another model, or convert it with `AutoTokenizer.from_pretrained(…).save_pretrained(…)`."
        )
    try:
        return _vocabulary(Tokenizer.from_file(str(path)))
    except Exception as error:  # noqa: BLE001 - the tokenizers library raises plain Exception
        raise InputError(
            f"{path} is not readable ({' '.join(str(error).split())[:200]}). Fetch it again."
        ) from None


def _vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    tokenizer.no_truncation()  # which a file keeps from the last call that asked for it
    tokenizer.no_padding()
    names = {token: name for name, token in tokenizer.get_vocab(with_added_tokens=True).items()}
    added = tokenizer.get_added_tokens_decoder()
    return Vocabulary(tokenizer, names, frozenset(token for token, entry in added.items() if entry.special))


def _byte_alphabet() -> dict[str, int]:
    """Returns GPT-2's character for each byte, the other way round.

    Radford et al. 2019, `bytes_to_unicode`: printable bytes stand for themselves, the others for 256, 257 and so on.
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


_BYTES = _byte_alphabet()


def _byte_level(name: str) -> bytes:
    if all(character in _BYTES for character in name):
        return bytes(_BYTES[character] for character in name)
    return name.encode()


def _sentencepiece(name: str) -> bytes:
    if match := BYTE_TOKEN.fullmatch(name):
        return bytes([int(match[1], 16)])
    return name.replace(WORD_START, " ").encode()


def _ends_by_offset(text: str, offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """Returns the ends in bytes from offsets in characters; None where the next token begins before this one's end."""
    positions = [0]
    for character in text:
        positions.append(positions[-1] + len(character.encode()))
    following = [*(start for start, _ in offsets), len(text)][1:]
    return [
        positions[end] if end <= start else None for (_, end), start in zip(offsets, following, strict=True)
    ]

"""The artifact's own tokenizer and chat template, as in training: ONNX Runtime GenAI's own may differ."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from edgewright_agent.engine_worker.backend import InvalidRequestError

BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")  # SentencePiece's byte fallback


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level BPE writes bytes as: printable Latin-1 as it is, the others from U+0100 on."""
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
        self._special = {
            name: token for name in ("bos_token", "eos_token") if (token := _content(config.get(name)))
        }
        self._template = _template(folder, config)
        added = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(token for token, entry in added.items() if entry.special)
        self._added = {token: str(entry.content).encode() for token, entry in added.items()}
        self._byte_level = "ByteLevel" in str(self._tokenizer.decoder)

    @property
    def prefix_id(self) -> int:
        """BOS if the model has one, else EOS (lm-evaluation-harness's `prefix_token_id`)."""
        token = self._special.get("bos_token") or self._special["eos_token"]
        return int(self._tokenizer.token_to_id(token))

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokens of `text`. A BOS that the text already begins with is not added again."""
        bos = self._special.get("bos_token")
        add = special and not (bos and text.startswith(bos))
        return list(self._tokenizer.encode(text, add_special_tokens=add).ids)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt for the assistant's next turn."""
        if self._template is None:
            raise InvalidRequestError("This model has no chat template; send a prompt to /v1/completions.")
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._special)
        except jinja2.TemplateError as error:
            raise InvalidRequestError(f"The chat template refuses these messages: {error}.") from None

    def token_bytes(self, token: int) -> bytes:
        """What the token stands for; a special token's name. Empty beyond the tokenizer's vocabulary."""
        if token in self._added:
            return self._added[token]
        piece = self._tokenizer.id_to_token(token) or ""
        if self._byte_level:
            return bytes(BYTE_OF[character] for character in piece)
        if BYTE_PIECE.fullmatch(piece):
            return bytes([int(piece[3:5], 16)])
        return str(piece).replace("▁", " ").encode()

    def decoder(self) -> Callable[[int], str]:
        """A function from each token in turn to the text it completes."""
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
        """A stream that has begun: at the beginning of a text, some decoders leave out a blank."""
        stream = DecodeStream(skip_special_tokens=True)
        for token in self.encode("a", special=False):
            stream.step(self._tokenizer, token)
        return stream


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def _content(token: Any) -> str | None:
    """`tokenizer_config.json` spells a special token as text or as an object."""
    content: str | None = token["content"] if isinstance(token, dict) else token
    return content


def _template(folder: Path, config: Mapping[str, Any]) -> jinja2.Template | None:
    """The chat template, compiled as `transformers` does: sandboxed, with its few extra names."""
    file = folder / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.exists() else config.get("chat_template")
    if source is None:
        return None
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)  # local time
    return environment.from_string(source)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)

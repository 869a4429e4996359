"""What a GGUF file says of its model, from its header alone: no tensor is read, no library needed.

Format: github.com/ggml-org/ggml, docs/gguf.md (version 2 and 3, little-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgewright.errors import InputError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_COUNT_MAX = 10_000_000  # keys, tokens, tensors: more is a damaged file
_TEXT_BYTES_MAX = 2**24
# GGUF names an architecture as llama.cpp does; config.json as transformers does.
_MODEL_TYPES = {"gemma3": "gemma3_text"}


@dataclass(frozen=True)
class GgufHeader:
    """Key-values, and the shape of each tensor (fastest dimension first)."""

    values: Mapping[str, Any]  # arrays by their length
    tensors: Mapping[str, tuple[int, ...]]


def read_gguf_header(path: Path) -> GgufHeader:
    """Raises InputError for a file that is no GGUF or is cut off."""
    try:
        with path.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise InputError(f"{path} is not a GGUF file: it does not begin with GGUF.")
            (version,) = _unpack(stream, "I")
            if version not in (2, 3):
                raise InputError(f"{path} is GGUF version {version}; versions 2 and 3 are read.")
            tensors, pairs = _unpack(stream, "QQ")
            values = dict(_pair(stream) for _ in range(_count(pairs)))
            return GgufHeader(values, dict(_tensor(stream) for _ in range(_count(tensors))))
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    except (struct.error, ValueError, KeyError):
        raise InputError(
            f"{path} is corrupt: its GGUF header is cut off or damaged. Fetch it again."
        ) from None


def config_from_gguf(header: GgufHeader, path: Path) -> dict[str, Any]:
    """Returns the fields of config.json that `architecture_from_config` reads."""
    values, tensors = header.values, header.tensors
    name = str(values.get("general.architecture"))

    def of_model(key: str) -> Any:
        return values.get(f"{name}.{key}")

    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding) != 2:
        raise InputError(f"{path} holds no tensor token_embd.weight; it is not a whole language model.")
    return {
        "model_type": _MODEL_TYPES.get(name, name),
        "num_hidden_layers": of_model("block_count"),
        "hidden_size": of_model("embedding_length"),
        "intermediate_size": of_model("feed_forward_length"),
        "num_attention_heads": of_model("attention.head_count"),
        "num_key_value_heads": of_model("attention.head_count_kv"),
        "head_dim": of_model("attention.key_length"),
        "max_position_embeddings": of_model("context_length"),
        "vocab_size": embedding[1],
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_output.bias" in tensors,
        "mlp_bias": "blk.0.ffn_down.bias" in tensors,
        "sliding_window": of_model("attention.sliding_window"),
    }


def _unpack(stream: BinaryIO, letters: str) -> tuple[Any, ...]:
    layout = struct.Struct(f"<{letters}")
    return layout.unpack(stream.read(layout.size))


def _count(count: int) -> int:
    if count > _COUNT_MAX:
        raise ValueError(count)
    return count


def _text(stream: BinaryIO) -> str:
    (size_bytes,) = _unpack(stream, "Q")
    if size_bytes > _TEXT_BYTES_MAX:
        raise ValueError(size_bytes)
    text = stream.read(size_bytes)
    if len(text) != size_bytes:
        raise ValueError(size_bytes)
    return text.decode("utf-8")


def _pair(stream: BinaryIO) -> tuple[str, Any]:
    key = _text(stream)
    (kind,) = _unpack(stream, "I")
    return key, _value(stream, kind)


def _value(stream: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(stream)
    if kind != _ARRAY:
        return _unpack(stream, _SCALARS[kind])[0]
    inner, count = _unpack(stream, "IQ")
    _skip(stream, inner, _count(count))
    return int(count)


def _skip(stream: BinaryIO, kind: int, count: int) -> None:
    """Passes over an array: a vocabulary is long, and only its length matters here."""
    if kind in _SCALARS:
        stream.seek(struct.calcsize(f"<{_SCALARS[kind]}") * count, 1)
        return
    for _ in range(count):
        if kind == _STRING:
            stream.seek(_unpack(stream, "Q")[0], 1)
        else:
            _value(stream, kind)


def _tensor(stream: BinaryIO) -> tuple[str, tuple[int, ...]]:
    name = _text(stream)
    (dimensions,) = _unpack(stream, "I")
    if dimensions > 8:
        raise ValueError(dimensions)
    shape = _unpack(stream, "Q" * dimensions)
    _unpack(stream, "IQ")  # type, offset
    return name, shape

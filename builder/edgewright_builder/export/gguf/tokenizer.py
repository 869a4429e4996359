"""The tokenizer in a GGUF's header: tokens, kinds, merges or scores, special tokens and chat template.

Two kinds of `tokenizer.json` exist among the families served: byte-level BPE ("gpt2" to llama.cpp), and BPE made from
SentencePiece with a fallback to bytes ("llama"). llama.cpp merges the latter by scores; the merges' order gives them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import InputError
from edgewright_builder.export.gguf.pre_tokenizer import pre_tokenizer_name
from edgewright_builder.models.folder import read_config

if TYPE_CHECKING:
    from gguf import GGUFWriter

SPACE = "▁"  # SentencePiece's letter for a space
SPECIAL = ("bos", "eos", "unk", "pad")
MORE_ENDS = ("eot", "eom")  # where a file has room for tokens that end an answer, beside `eos`
# Ends that llama.cpp finds by their names (`llama_vocab::impl::load` in src/llama-vocab.cpp).
KNOWN_ENDS = ("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>")
NO_MERGES = [
    ("[none]", "[none]")
]  # llama.cpp asks for merges; these letters never stand together as one symbol
UNMERGED_SCORE = -1e6  # of a piece that no merge makes: it never wins over one that a merge makes


@dataclass(frozen=True)
class Tokenizer:
    """The files of a tokenizer."""

    document: Mapping[str, Any]  # tokenizer.json
    settings: Mapping[str, Any]  # tokenizer_config.json
    chat_template: str | None
    path: Path

    @property
    def from_sentencepiece(self) -> bool:
        """Whether it falls back to bytes, instead of beginning with them."""
        return bool(self.document["model"].get("byte_fallback"))


def read_tokenizer(folder: Path) -> Tokenizer:
    """Returns the tokenizer in `folder`. Raises InputError where it is none that llama.cpp can hold."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise InputError(f"{folder} holds no tokenizer.json, from which llama.cpp's tokenizer is made.")
    document = _document(path)
    settings_path, template_path = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    settings = _json(settings_path) if settings_path.exists() else {}
    template = settings.get("chat_template")
    if isinstance(template, list):  # several by name, as older files have them
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    if template_path.exists():
        template = template_path.read_text(encoding="utf-8")
    if document["model"].get("type") != "BPE":
        raise InputError(
            f"The tokenizer is of type {document['model'].get('type')}; llama.cpp's export takes BPE."
        )
    return Tokenizer(document, settings, template if isinstance(template, str) else None, path)


def _document(path: Path) -> dict[str, Any]:
    document = _json(path)
    model = document.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise InputError(f"{path} holds no `model` with a `vocab`; fetch the model again.")
    return document


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable: {error}. Fetch the model again.") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {type(value).__name__}, not keys and values. Fetch the model again.")
    return value


def write_tokenizer(writer: GGUFWriter, checkpoint: Path, vocab_size: int) -> None:
    """Writes the tokenizer of `checkpoint` for a model of `vocab_size` rows. Raises InputError as `read_tokenizer`."""
    tokenizer = read_tokenizer(checkpoint)
    texts, kinds = _tokens(tokenizer, vocab_size)
    if tokenizer.from_sentencepiece:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(tokenizer, texts))
        writer.add_add_space_prefix(_begins_with_space(tokenizer.document))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre_tokenizer_name(tokenizer.document))
        writer.add_token_merges([" ".join(pair) for pair in _merges(tokenizer.document) or NO_MERGES])
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    _write_special(writer, tokenizer, checkpoint)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _tokens(tokenizer: Tokenizer, vocab_size: int) -> tuple[list[str], list[int]]:
    """Returns the text of each row of the embedding, and its kind."""
    from gguf import TokenType

    texts = [f"[PAD{index}]" for index in range(vocab_size)]
    kinds = [int(TokenType.UNUSED)] * vocab_size
    model = tokenizer.document["model"]
    for text, index in model["vocab"].items():
        if index >= vocab_size:
            raise InputError(f"The tokenizer has token {index}, and the model's embedding {vocab_size} rows.")
        texts[index] = text
        kinds[index] = int(_kind(text, model))
    for added in tokenizer.document.get("added_tokens") or ():
        index = added["id"]
        if index >= vocab_size:
            raise InputError(f"The tokenizer has token {index}, and the model's embedding {vocab_size} rows.")
        texts[index] = added["content"]
        if kinds[index] != TokenType.UNKNOWN:
            kinds[index] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
        if kinds[index] == TokenType.USER_DEFINED and tokenizer.from_sentencepiece:
            texts[index] = texts[index].replace(
                SPACE, " "
            )  # such tokens are cut out before spaces are replaced
    return texts, kinds


def _kind(text: str, model: Mapping[str, Any]) -> int:
    from gguf import TokenType

    if text == model.get("unk_token"):
        return TokenType.UNKNOWN
    is_byte = model.get("byte_fallback") and len(text) == 6 and text.startswith("<0x") and text.endswith(">")
    return TokenType.BYTE if is_byte else TokenType.NORMAL


def _merges(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = (each.split(" ", 1) if isinstance(each, str) else each for each in document["model"]["merges"])
    return [(left, right) for left, right in pairs]


def _scores(tokenizer: Tokenizer, texts: list[str]) -> list[float]:
    """Returns a score a token: the earlier the merge that makes it, the higher."""
    made: dict[str, int] = {}
    for rank, (left, right) in enumerate(_merges(tokenizer.document)):
        made.setdefault(left + right, rank)
    return [-float(made[text]) if text in made else UNMERGED_SCORE for text in texts]


def _begins_with_space(document: Mapping[str, Any]) -> bool:
    """Whether a space is put before the text."""
    steps = [document.get("normalizer") or {}, document.get("pre_tokenizer") or {}]
    while steps:
        step = steps.pop()
        steps += step.get("normalizers", []) + step.get("pretokenizers", [])
        if step.get("type") == "Prepend":
            return True
        if step.get("type") == "Metaspace":
            return str(step.get("prepend_scheme", "always")) != "never"
    return False


def _write_special(writer: GGUFWriter, tokenizer: Tokenizer, checkpoint: Path) -> None:
    from tokenizers import Tokenizer as Encoder

    encoder = Encoder.from_file(str(tokenizer.path))
    encoder.no_truncation()  # which a file keeps from the last call that asked for it
    encoder.no_padding()
    config = read_config(checkpoint)
    ids: dict[str, int] = {}
    for name in SPECIAL:
        text = tokenizer.settings.get(f"{name}_token")
        text = text.get("content") if isinstance(text, dict) else text
        index = encoder.token_to_id(text) if isinstance(text, str) else config.get(f"{name}_token_id")
        index = index[0] if isinstance(index, list) and index else index
        if isinstance(index, int):
            ids[name] = index
            getattr(writer, f"add_{name}_token_id")(index)
    plain, wrapped = encoder.encode("a", add_special_tokens=False).ids, encoder.encode("a").ids
    writer.add_add_bos_token(wrapped[: len(wrapped) - len(plain)][:1] == [ids.get("bos")])
    writer.add_add_eos_token(False)
    _write_more_ends(writer, encoder, _ends(checkpoint) - {ids.get("eos")})


def _ends(checkpoint: Path) -> set[int]:
    """Returns the tokens that end an answer, as generation_config.json has them; none where it is not there."""
    path = checkpoint / "generation_config.json"
    named = _json(path).get("eos_token_id") if path.exists() else None
    return {token for token in (named if isinstance(named, list) else [named]) if isinstance(token, int)}


def _write_more_ends(writer: GGUFWriter, encoder: Any, ends: set[int]) -> None:
    """Writes the ends that llama.cpp would not find. Raises InputError for more than the file has room for."""
    unknown = sorted(token for token in ends if encoder.id_to_token(token) not in (None, *KNOWN_ENDS))
    if len(unknown) > len(MORE_ENDS):
        names = ", ".join(encoder.id_to_token(token) for token in unknown)
        raise InputError(
            f"generation_config.json ends an answer at {names}; a GGUF file has room for {len(MORE_ENDS)} of them. "
            "Serve the model with another engine."
        )
    for name, token in zip(MORE_ENDS, unknown, strict=False):
        getattr(writer, f"add_{name}_token_id")(token)

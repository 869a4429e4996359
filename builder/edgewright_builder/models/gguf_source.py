"""A GGUF file as a checkpoint in floats, with a tokenizer that cuts text as the file says.

transformers reads the tensors and the vocabulary. How text is cut before merges stands in the file as a name of
llama.cpp's, `tokenizer.ggml.pre`; transformers 5.24.0 takes GPT-2's way for every name that it does not know.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.digests import file_sha256
from edgewright.errors import InputError
from edgewright_builder.models.folder import brief

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FOLDER = "gguf-2"  # in the cache. What 0.2.0 left in `gguf` cuts digits as GPT-2 does.
BYTE_LEVEL = "gpt2"  # what llama.cpp calls every vocabulary of this kind
UNTOLD = "default"  # files from before there were names, and those whose way had none
DIGITS_ALONE = ("smollm", "starcoder", "refact")  # names of one way, of SmolLM, StarCoder and Granite


def from_gguf(file: Path, cache: Path) -> Path:
    """Returns a folder in `cache` with the model in float32; a second call finds it there.

    Raises InputError for a file that is no model, or whose way to cut text is not known.
    """
    folder = cache / FOLDER / file_sha256(file)[:32]
    if (folder / "config.json").exists():
        return folder
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise InputError(f"{file} is not a GGUF file: it does not begin with the letters GGUF.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _dequantize(file, Path(scratch) / folder.name)
        _publish(Path(scratch) / folder.name, folder)
    return folder


def _publish(made: Path, folder: Path) -> None:
    """Renames `made` to `folder`, unless another build of the same model was faster."""
    try:
        made.replace(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _dequantize(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = read_tokenizer(file)
    try:
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except Exception as error:  # noqa: BLE001 - a damaged file fails anywhere in the loader
        raise _unreadable(file, error) from None
    model.hf_quantizer = None  # save_pretrained refuses while the model calls itself quantized
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_tokenizer(file: Path) -> Any:
    """Returns transformers' tokenizer of the file, which cuts text as llama.cpp does for it.

    Raises InputError for a damaged file, and for a way to cut that is known neither here nor to transformers.
    """
    from transformers import AutoTokenizer

    from edgewright_builder.fit.configuration.gguf_header import read_gguf_header

    try:
        values = read_gguf_header(file).values
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # noqa: BLE001 - a damaged file fails anywhere in the loader
        raise _unreadable(file, error) from None
    _cut_as_told(tokenizer.backend_tokenizer, values, file)
    if values.get("tokenizer.ggml.model") == BYTE_LEVEL:
        _require_whole_words(tokenizer.backend_tokenizer, file)
    return tokenizer


def _cut_as_told(tokenizer: Tokenizer, values: Mapping[str, Any], file: Path) -> None:
    from tokenizers import normalizers, pre_tokenizers

    # SentencePiece; Gemma and Phi-3 have tokenizers of their own.
    if isinstance(tokenizer.pre_tokenizer, pre_tokenizers.Metaspace):
        space_before = values.get("tokenizer.ggml.add_space_prefix", True)
        steps = [normalizers.Prepend("▁")] if space_before else []
        tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = None
        return
    name = values.get("tokenizer.ggml.pre", UNTOLD)
    byte_level = values.get("tokenizer.ggml.model") == BYTE_LEVEL
    if not byte_level or not _is_gpt_2(tokenizer) or name in ("gpt-2", UNTOLD):
        return
    if name not in DIGITS_ALONE:
        raise InputError(
            f"{file} cuts text in the way that llama.cpp calls {name!r}, which is not known here. Give the folder or "
            "the hub id of the original model instead."
        )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])  # fmt: skip


def _require_whole_words(tokenizer: Tokenizer, file: Path) -> None:
    """Raises InputError for a word that is to be cut out of a text before all else, and is not.

    transformers adds those that are written in GPT-2's letters for bytes; a run of blanks is not.
    """
    import gguf

    fields = gguf.GGUFReader(file).fields
    texts, kinds = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type"))
    own = [number for number, kind in enumerate(kinds) if kind == gguf.TokenType.USER_DEFINED]
    for number in own:
        text = texts[number]
        if number not in tokenizer.encode(f"x{text}x", add_special_tokens=False).ids:
            raise InputError(
                f"{file} has {text!r} as a word of its own, token {number}, and transformers would cut it. Give the "
                "folder or the hub id of the original model instead."
            )


def _is_gpt_2(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer cuts as GPT-2's: transformers' choice for a name that it does not know."""
    from tokenizers import pre_tokenizers

    step = tokenizer.pre_tokenizer
    return isinstance(step, pre_tokenizers.ByteLevel) and bool(step.use_regex)


def _unreadable(file: Path, error: Exception) -> InputError:
    return InputError(f"{file} could not be read as a model ({brief(error)}). Fetch it again.")

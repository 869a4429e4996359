"""Models in folders of the usual layout (config.json, *.safetensors, tokenizer): loaded, identified, compared."""

from __future__ import annotations

import hashlib
import json
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.digests import digest_of, file_sha256
from edgewright.errors import InputError

if TYPE_CHECKING:
    from torch import nn

MODEL_SUFFIXES = {".json", ".safetensors", ".jinja", ".model", ".tiktoken"}
TOKENIZER_TEXTS = {"merges.txt", "vocab.txt"}  # of tokenizers from before tokenizer.json


def load_model(folder: Path) -> nn.Module:
    """Returns the causal language model in `folder`: float32 on a CPU, where bfloat16 is slower, else bfloat16.

    Raises InputError where the weights lack a tensor of the configuration (it would be random) or one of its shape.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if torch.cuda.is_available():
        settings = {"dtype": torch.bfloat16, "device_map": "auto"}
    else:
        settings = {"dtype": torch.float32}
    model: nn.Module
    try:
        model, loading_info = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, **settings
        )
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(f"The weights in {folder} do not fit its config.json ({brief(error)}).") from None
    if missing := sorted(loading_info["missing_keys"]):
        raise InputError(
            f"The weights in {folder} lack {len(missing)} tensors of its config.json, the first is {missing[0]}. "
            "Fetch it again."
        )
    return model.eval()


def cache_argument(model: Any) -> str:
    """Returns what `forward` calls its cache: transformers 5.24 renamed `past_key_values` to `cache` and warns."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def brief(error: Exception) -> str:
    """Returns a library's error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def load_tokenizer(folder: Path) -> Any:
    """Returns the tokenizer in `folder`, which cuts and pads no text. Raises InputError if it is damaged or missing.

    A file keeps truncation and padding from the last call that asked for them, and what is saved again would ship them.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
            backend.no_truncation()
            backend.no_padding()
        return tokenizer
    except Exception as error:  # noqa: BLE001 - the tokenizers library raises plain Exception
        raise InputError(f"{folder} holds no readable tokenizer ({brief(error)}). Fetch it again.") from None


def read_config(folder: Path) -> dict[str, Any]:
    """Returns config.json as it is. Needs no torch. Raises InputError where it can't be read."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder / 'config.json'} is not readable: {error}.") from None
    if not isinstance(config, dict):
        raise InputError(f"{folder / 'config.json'} holds {type(config).__name__}, not keys and values.")
    return config


def model_digest(folder: Path) -> str:
    """Returns a digest over the files of `folder`, which identifies its weights and its tokenizer.

    Raises InputError where config.json can't be read.
    """
    files = sorted(path for path in folder.iterdir() if _is_read(path))
    return digest_of([[path.name, _content_digest(path)] for path in files])


def _is_read(path: Path) -> bool:
    """Whether transformers reads the file for a model or its tokenizer."""
    return path.suffix in MODEL_SUFFIXES or path.name in TOKENIZER_TEXTS


def _content_digest(path: Path) -> str:
    if path.name != "config.json":
        return file_sha256(path)
    config = read_config(path.parent)
    for key in ("_name_or_path", "transformers_version"):  # where it was, not what it is
        config.pop(key, None)
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def require_same_vocabulary(student: Path, teacher: Path) -> None:
    """Raises InputError naming the first token that differs."""
    if (difference := vocabulary_difference(student, teacher)) is not None:
        raise InputError(
            f"`distillation.alignment: shared` needs one vocabulary, but {difference}. Choose a teacher of the "
            "student's family, or `alignment: auto`."
        )


def vocabulary_difference(student: Path, teacher: Path) -> str | None:
    """Returns the first token that differs, in words; None where the two share their vocabulary."""
    ours, theirs = _vocabulary(student), _vocabulary(teacher)
    for token_id in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(token_id), theirs.get(token_id)
        if mine != other:
            return f"token {token_id} is {mine!r} in the student and {other!r} in the teacher"
    return None


def _vocabulary(folder: Path) -> dict[int, str]:
    vocabulary: dict[str, int] = load_tokenizer(folder).get_vocab()
    return {token_id: token for token, token_id in vocabulary.items()}

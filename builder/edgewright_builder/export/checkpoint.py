"""The stage `export` for vLLM and TensorRT Edge-LLM: the GPTQ checkpoint, with what is not quantized in 16 bits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from edgewright.durable import write_json
from edgewright_builder.export.files import copy_tokenizer, size_of
from edgewright_builder.models.folder import read_config

COPIED = ("generation_config.json", "model.safetensors.index.json")
EMBEDDING_BITS = 16  # GPTQ leaves embedding and head as they are
# Their activations leave float16's range; vLLM 0.32 refuses it for them (`_FLOAT16_NOT_SUPPORTED_MODELS`).
NO_FLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text"})


def export_checkpoint(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Writes `folder/engine`, a whole checkpoint, and `folder/tokenizer`.

    The tokenizer lies in both, as Edge-LLM builds from one folder; a board holds its bytes once. GPTQModel quantizes in
    float32 on a CPU and leaves embedding and norms in that; both engines compute in 16 bits.
    """
    engine, tokenizer = folder / "engine", folder / "tokenizer"
    engine.mkdir()
    config = read_config(checkpoint)
    dtype = _half_of(config)
    for file in sorted(checkpoint.glob("*.safetensors")):
        _write_half(file, engine / file.name, dtype)
    for name in COPIED:
        if (checkpoint / name).exists():
            shutil.copyfile(checkpoint / name, engine / name)
    outdated = ("_name_or_path", "_model_name_or_path", "torch_dtype")
    kept = {name: value for name, value in config.items() if name not in outdated}
    write_json(engine / "config.json", kept | {"dtype": dtype})
    copy_tokenizer(checkpoint, tokenizer)
    for file in tokenizer.iterdir():
        shutil.copyfile(file, engine / file.name)
    tied = bool(config.get("tie_word_embeddings"))
    return {"embedding_bits": EMBEDDING_BITS, "tied": tied, "size_bytes": size_of(folder)}


def _half_of(config: dict[str, Any]) -> str:
    """Returns the 16-bit type that the model computes in."""
    needs_range = config.get("model_type") in NO_FLOAT16 or config.get("dtype") == "bfloat16"
    return "bfloat16" if needs_range else "float16"


def _write_half(source: Path, target: Path, dtype: str) -> None:
    """A copy with float32 tensors in `dtype`."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    save_file(
        {
            name: tensor.to(getattr(torch, dtype)) if tensor.dtype == torch.float32 else tensor
            for name, tensor in tensors.items()
        },
        target,
        metadata,
    )

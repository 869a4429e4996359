"""The weights that a GGUF file holds, as a transformers model: to be judged beside those before the export."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from torch import Tensor, nn

from edgewright_builder.quantization.gptq_checkpoint import load_dequantized

EMBEDDING, HEAD = "token_embd.weight", "output.weight"


def load_exported(checkpoint: Path, file: Path) -> nn.Module:
    """Returns the model of a GPTQ checkpoint with the embedding and the head of the GGUF file made from it.

    The file holds all other weights bit for bit as the checkpoint does, so they are read from there.
    """
    model = load_dequantized(checkpoint)
    tables = _tables(file)
    with torch.no_grad():
        _copy(tables[EMBEDDING], model.get_input_embeddings())  # type: ignore[operator]
        if HEAD in tables:
            _copy(tables[HEAD], model.get_output_embeddings())  # type: ignore[operator]
    return model


def _tables(file: Path) -> dict[str, Tensor]:
    """Returns embedding and head in floats, (words, width) each; a tied one has no head of its own."""
    return {
        tensor.name: torch.from_numpy(
            gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(*reversed(tensor.shape.tolist()))
        )
        for tensor in gguf.GGUFReader(file).tensors
        if tensor.name in (EMBEDDING, HEAD)
    }


def _copy(table: Tensor, layer: nn.Module) -> None:
    """Overwrites a layer's weight; the file may hold fewer words than a padded table."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    weight[: len(table)].copy_(table)

"""Tables of positions as transformers computes them, whatever the kind of scaling: its own rotary module is asked."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewright.errors import InputError
from edgewright_builder.export.decoder import SHARED_ROPE

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig


def meta_model(config: PretrainedConfig) -> nn.Module:
    """Returns the model of `config` without memory for its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    unquantized: Any = copy.deepcopy(config)
    if hasattr(unquantized, "quantization_config"):
        del unquantized.quantization_config
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(unquantized)
    return model


def embedding_scale(model: nn.Module) -> float:
    """Returns what the model multiplies its embeddings with; 1 where it does not."""
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    return float(getattr(embeddings, "scalar_embed_scale", 1.0))


def rotary_table(
    model: nn.Module, config: PretrainedConfig, rope: str, positions: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns (cos, sin), each (positions, rotary elements / 2), of one set of frequencies.

    Raises InputError where a model turns neighbours instead of the two halves of a head.
    """
    import torch

    kinds = {type(each) for each in model.modules() if type(each).__name__.endswith("RotaryEmbedding")}
    if len(kinds) != 1:
        raise InputError(f"A {config.model_type} model has {len(kinds)} kinds of positions; one is expected.")
    rotary: Any = kinds.pop()(config)
    which = {} if rope == SHARED_ROPE else {"layer_type": rope}
    cos, sin = rotary(torch.zeros(1, 1, 1), torch.arange(positions)[None], **which)
    half = cos.shape[-1] // 2
    if not torch.equal(cos[..., :half], cos[..., half:]):
        raise InputError(f"A {config.model_type} model turns neighbouring elements, which is not supported.")
    return cos[0, :, :half].numpy(), sin[0, :, :half].numpy()

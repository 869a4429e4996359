"""Gives each layer the positions and the mask that its model gives it, where a quantizer keeps the first one's.

GPTQModel and AutoRound record what the first layer is called with, and call every layer with that. In a model whose
layers differ in it, such as Gemma 3, the others would be calibrated for angles that they never see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

POSITIONS, MASK = (
    "position_embeddings",
    "attention_mask",
)  # what a model may give its layers in more than one form


def keep_layer_inputs(
    model: nn.Module, layers: Sequence[nn.Module], sequences: Sequence[Sequence[int]]
) -> int:
    """Has each layer that differs from the first use its own inputs; returns how many do.

    `sequences` are those that the layers are called with later, each from its first token, padded on the right if at
    all.
    """
    recorded = _recorded(model, layers, max(sequences, key=len))
    differing = 0
    for layer, inputs in zip(layers, recorded, strict=True):
        own = {name: value for name, value in inputs.items() if not _equal(value, recorded[0].get(name))}
        if own:
            layer.register_forward_pre_hook(_Replacing(own), with_kwargs=True)
            differing += 1
    return differing


class _Replacing:
    """A hook that puts a layer's own inputs in the place of those it is called with."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        self._inputs = inputs

    def __call__(
        self, _layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden: Tensor = arguments[0] if arguments else keywords["hidden_states"]
        own = {name: _cut(name, value, hidden) for name, value in self._inputs.items()}
        return arguments, keywords | own


def _recorded(model: nn.Module, layers: Sequence[nn.Module], tokens: Sequence[int]) -> list[dict[str, Any]]:
    """Returns what the model calls each of its layers with."""
    recorded: list[dict[str, Any]] = []

    def record(_layer: nn.Module, _arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        recorded.append({name: keywords[name] for name in (POSITIONS, MASK) if name in keywords})

    hooks = [layer.register_forward_pre_hook(record, with_kwargs=True) for layer in layers]
    with torch.no_grad():
        model(torch.tensor([list(tokens)], device=next(model.parameters()).device), use_cache=False)
    for hook in hooks:
        hook.remove()
    return recorded


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, tuple):
        return isinstance(theirs, tuple) and len(ours) == len(theirs) and all(map(_equal, ours, theirs))
    if isinstance(ours, Tensor):
        return isinstance(theirs, Tensor) and torch.equal(ours, theirs)
    return bool(ours == theirs)


def _cut(name: str, value: Any, hidden: Tensor) -> Any:
    """Returns the input for as many tokens as there are hidden states, where they are and, if floats, in their type.

    Positions are (1, tokens, width) each, a mask (1, 1, tokens, tokens); both hold for every sequence of a batch.
    """
    if isinstance(value, tuple):
        return tuple(_cut(name, part, hidden) for part in value)
    if not isinstance(value, Tensor):
        return value
    tokens = hidden.shape[1]
    part = value[:, :tokens] if name == POSITIONS else value[..., :tokens, :tokens]
    return part.to(hidden.device, hidden.dtype if part.is_floating_point() else None)

"""The facts of a model that its memory follows from, read from config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgewright_agent.errors import InputError

SUPPORTED_TYPES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
GROUP_SIZES = (128, 64, 32)


@dataclass(frozen=True)
class Architecture:
    """A decoder with grouped-query attention and a gated MLP."""

    model_type: str
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied_embeddings: bool
    max_context_tokens: int

    @property
    def linear_parameters(self) -> int:
        """Weights of the attention and MLP projections, the ones GPTQ quantizes."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden_size * (2 * query + 2 * key_value)
        return self.layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def embedding_parameters(self) -> int:
        """Weights of one embedding matrix; an untied head is a second one."""
        return self.vocab_size * self.hidden_size

    @property
    def norm_parameters(self) -> int:
        """Weights of the normalizations: two per layer and a last one."""
        return (2 * self.layers + 1) * self.hidden_size

    @property
    def parameters(self) -> int:
        """All weights, a tied embedding counted once."""
        embeddings = self.embedding_parameters * (1 if self.tied_embeddings else 2)
        return self.linear_parameters + embeddings + self.norm_parameters

    @property
    def bf16_bytes(self) -> int:
        """Size of the unquantized model at 16 bits."""
        return 2 * self.parameters

    def with_layers(self, layers: int) -> Architecture:
        """The same model, less deep."""
        return replace(self, layers=layers)

    def largest_group_size(self) -> int:
        """The largest of 128, 64, 32 that divides the input dimension of every linear layer.

        Raises InputError where none does: padding would change what is measured.
        """
        inputs = (self.hidden_size, self.heads * self.head_dim, self.intermediate_size)
        for group_size in GROUP_SIZES:
            if all(dimension % group_size == 0 for dimension in inputs):
                return group_size
        raise InputError(f"No group size of {GROUP_SIZES} divides this model's input dimensions {inputs}.")


def architecture_from_config(config: Mapping[str, Any]) -> Architecture:
    """Reads `config.json`; raises InputError naming what is unsupported, missing or contradictory."""
    model_type = config.get("model_type")
    if model_type not in SUPPORTED_TYPES:
        raise InputError(
            f"Model type {model_type!r} is not supported; supported are {', '.join(SUPPORTED_TYPES)}."
        )
    needed = (
        "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size",
        "max_position_embeddings",
    )  # fmt: skip
    missing = [key for key in needed if not isinstance(config.get(key), int) or config[key] <= 0]
    if missing:
        raise InputError(f"config.json of this {model_type} model lacks a positive {', '.join(missing)}.")
    heads, hidden_size = config["num_attention_heads"], config["hidden_size"]
    kv_heads = config.get("num_key_value_heads") or heads
    if heads % kv_heads:
        raise InputError(
            f"config.json is contradictory: {heads} attention heads are no multiple of {kv_heads} KV heads."
        )
    head_dim = config.get("head_dim") or hidden_size // heads
    if "head_dim" not in config and hidden_size % heads:
        raise InputError(
            f"config.json is contradictory: hidden size {hidden_size} is no multiple of {heads} heads."
        )
    return Architecture(
        model_type=model_type,
        layers=config["num_hidden_layers"],
        hidden_size=hidden_size,
        intermediate_size=config["intermediate_size"],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=config["vocab_size"],
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        max_context_tokens=config["max_position_embeddings"],
    )

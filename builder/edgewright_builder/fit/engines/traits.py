"""What an engine can do with a model, and how it lays one out: all that the rest of the builder knows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from edgewright.errors import InputError

if TYPE_CHECKING:
    from edgewright_builder.fit.architecture import Architecture
    from edgewright_builder.fit.memory import Calibration, Configuration

Config = Mapping[str, Any]  # config.json
Format = Literal["onnx", "gptq", "gguf"]  # what `export` writes for it, and what it computes from


@dataclass(frozen=True)
class Storage:
    """How an engine holds weights."""

    scale_bits: int = 32
    block_weights: int | None = None  # that share a stored scale; None: the plan's group
    untied_table_quantized: bool = (
        False  # an embedding that is not the head: quantized like it, else in floats
    )
    # A tied table of these bits is repacked for the head, beside the one that embeddings are looked up in.
    repacked_table_bits: tuple[int, ...] = ()
    table_always_apart: bool = False  # embedding and head are two tensors even where the model ties them


@dataclass(frozen=True)
class Buffers:
    """Bytes that live while a prompt is read, beyond weights and KV cache."""

    layer_activation_bytes: int
    logits_bytes: int
    lookup_bytes: int = 0  # pages of a file that embeddings are looked up in


BufferArithmetic = Callable[["Architecture", "Configuration", "Calibration"], Buffers]


@dataclass(frozen=True)
class ProofTraits:
    """How the engine's computation of a model is held against transformers' (`parity` runs it)."""

    tolerance: float  # of the spread of the logits; what rounding alone leaves is less
    # The configuration of what it computes: a model that it serves in part only is proved in that part.
    as_served: Callable[[Config], Config] = lambda config: config


@dataclass(frozen=True)
class EngineTraits:
    """Facts of an engine as Edgewright starts it."""

    kind: str
    processor: Literal["cpu", "gpu"]  # that computes on a board whose GPU it can use
    weight_bits: int
    embedding_bits: tuple[int, ...]  # best first
    kv_bits: tuple[int, ...]  # best first
    format: Format
    takes_adapters: bool
    model_types: frozenset[str]  # those its exporter or loader knows
    storage: Storage = Storage()
    buffers: BufferArithmetic | None = None  # None: slices of a prompt as ONNX Runtime's worker reads them
    group_sizes: tuple[int, ...] = (
        128,
        64,
        32,
    )  # that a plan may choose, the first that divides the model first
    # What of a configuration of so many layers it can't compute; None where it is nothing.
    refuses: Callable[[Config, int], str | None] = lambda config, layers: None
    # The longest sequence it computes as transformers does, and what sets that limit; None: the model's own.
    longest: Callable[[Config], tuple[int, str]] | None = None
    proof: ProofTraits | None = (
        None  # None: it computes from the checkpoint itself, of which nothing is exported
    )
    recommended: bool = True  # whether it is compared with others unless it is asked for
    tried: bool = True  # whether it has ever run for this project, on a board or on a host
    runs_on_host: bool = (
        True  # so that a build evaluates what ships in it; else in transformers, weight for weight
    )

    def plan_group_sizes(self, architecture: Architecture) -> tuple[int, ...]:
        """Returns the group sizes to choose from, best first. Raises InputError where none divides the model."""
        dividing = architecture.group_sizes()
        sizes = tuple(size for size in self.group_sizes if size in dividing)
        if not sizes:
            raise InputError(
                f"{self.kind} takes groups of {' or '.join(map(str, self.group_sizes))} weights; "
                f"the largest that divides this model is {dividing[0]}."
            )
        return sizes

    def architecture_of(self, architecture: Architecture, config: Config) -> Architecture:
        """Returns the model as this engine serves it: sequences no longer than it computes them right."""
        if self.longest is None or self.why_not(config, architecture.layers) is not None:
            return architecture
        tokens, limited_by = self.longest(config)
        if tokens >= architecture.max_context_tokens:
            return architecture
        return replace(architecture, max_context_tokens=tokens, context_limited_by=limited_by)

    def why_not(self, config: Config, layers: int) -> str | None:
        """Returns why it can't serve a model of this configuration with so many layers; None if it can."""
        model_type = str(config.get("model_type"))
        if model_type not in self.model_types:
            return f"the exporter of {self.kind} does not know the model type {model_type}"
        return self.refuses(config, layers)

"""h(m̂): the peak memory of an engine that serves a model, as a pure function.

    weights = linear·(bits + 32/group)/8 + embedding·(bits + 32/32)/8 [+ embedding·4 if untied] + norms·4
    kv      = 2 · layers · kv_heads · head_dim · 4 · context · concurrency
    act     = slice · (4·(2·hidden + 3·intermediate) + 4·vocab)
    h       = engine_constant + linear_copies·linear + embedding_copies·embedding + norms + kv + act

The weights are those of an ONNX Runtime GenAI export: 4-bit linears with one float32 scale per group, embedding and
head in blocks of 32. Where the model ties them they are one tensor; where not, the exporter keeps the embedding itself
in float32 and quantizes the head. KV and activations are
float32 on a CPU. `act` is the widest layer of one slice of the prompt plus that slice's logits. The constants come
from measurements of the running engine, with the error those left (`calibration`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

from edgewright_agent.errors import InputError
from edgewright_builder.fit.architecture import Architecture

SCALE_BITS = 32
EMBEDDING_BLOCK = 32
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Configuration:
    """m̂: what of a model and its serving decides its memory."""

    layers: int
    weight_bits: int
    group_size: int
    embedding_bits: int
    context_tokens: int
    concurrency: int


@dataclass(frozen=True)
class Calibration:
    """What measurements of an engine say beyond the arithmetic."""

    engine: str
    engine_version: str
    machine: str  # where it was measured
    points: int  # how many measurements
    constant_bytes: int  # interpreter, runtime, tokenizer
    linear_copies: float  # > 1 where the engine keeps a second, repacked copy
    embedding_copies: float
    logits_bytes_max: int  # the prompt is read in slices whose logits stay below this
    error_fraction: float  # worst relative error over the measured points

    def __str__(self) -> str:
        return f"{self.points} measurements of {self.engine} {self.engine_version} on {self.machine}"


@dataclass(frozen=True)
class Memory:
    """A predicted peak in bytes, by what takes it."""

    linear_bytes: int
    embedding_bytes: int
    norm_bytes: int
    kv_cache_bytes: int
    activation_bytes: int
    engine_bytes: int  # runtime and second copies

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights as stored."""
        return self.linear_bytes + self.embedding_bytes + self.norm_bytes

    @property
    def peak_bytes(self) -> int:
        """The sum."""
        return self.weights_bytes + self.kv_cache_bytes + self.activation_bytes + self.engine_bytes


def load_calibration(engine: str) -> Calibration:
    """The shipped calibration of an engine; raises InputError where there is none."""
    file = resources.files(__package__) / "calibrations" / f"{engine}.json"
    if not file.is_file():
        raise InputError(f"There is no memory calibration for the engine {engine!r}.")
    return Calibration(**json.loads(file.read_text(encoding="utf-8")))


def predict_memory(architecture: Architecture, m: Configuration, calibration: Calibration) -> Memory:
    """h(m̂) in bytes, term by term (see the module)."""
    model = architecture.with_layers(m.layers)
    linear_bits = m.weight_bits + SCALE_BITS / m.group_size
    embedding_bits = m.embedding_bits + SCALE_BITS / EMBEDDING_BLOCK
    lookup_table = 0 if model.tied_embeddings else model.embedding_parameters * FLOAT_BYTES
    linear = round(model.linear_parameters * linear_bits / 8)
    head = round(model.embedding_parameters * embedding_bits / 8)
    norm = model.norm_parameters * FLOAT_BYTES
    kv_per_token = 2 * model.layers * model.kv_heads * model.head_dim * FLOAT_BYTES
    per_token = FLOAT_BYTES * (2 * model.hidden_size + 3 * model.intermediate_size + model.vocab_size)
    slice_tokens = min(
        max(1, calibration.logits_bytes_max // (FLOAT_BYTES * model.vocab_size)), m.context_tokens
    )
    second_copies = (calibration.linear_copies - 1) * linear + (calibration.embedding_copies - 1) * head
    return Memory(
        linear_bytes=linear,
        embedding_bytes=head + lookup_table,
        norm_bytes=norm,
        kv_cache_bytes=kv_per_token * m.context_tokens * m.concurrency,
        activation_bytes=slice_tokens * per_token,
        engine_bytes=calibration.constant_bytes + round(second_copies),
    )

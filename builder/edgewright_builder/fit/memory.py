"""h(m̂): the peak memory of an engine that serves a model, as a pure function.

    weights = linear·(bits + 32/group)/8 + embedding·(bits + 32/32)/8 [+ embedding·4 if untied] + norms·4
    kv      = 2 · layers · kv_heads · head_dim · context · kv_bits/8 · concurrency
    act     = slice · 4 · (2·hidden + 3·intermediate + heads·context) + logits_copies · slice · 4 · vocab
              + table · (1 − (1 − file_page/table)^slice)
    runtime = constant + tokenizer · vocab
    repack  = block_sums · scales of linears and head
    h       = runtime + linear_copies·linear + embedding_copies·embedding + repack + norms + kv + act

The weights are those of an ONNX Runtime GenAI export: 4-bit linears with one float32 scale per group, embedding and
head in blocks of 32. The engine multiplies with repacked copies that replace linears and head, and hold one float32
sum of codes beside every scale (`repack`); the tables it looks embeddings up in stay in the file, where the kernel
holds no more of them than is used. Where the model ties embedding and head they are one tensor; where not, the
exporter keeps the embedding in float32. KV and activations are float32 on a CPU. `act` is the widest layer of one
slice of the prompt, with the attention scores of the slice against the whole context, that slice's logits, and the
pages of the file that looking up its embeddings brings in: so many of the table's as tokens spread over it at random
lie in, each page `file_page` bytes with what the kernel maps around it. The two constants of the runtime come from
measurements of the running engine, with the error those left (`calibrations/`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources

from edgewright.errors import InputError
from edgewright_builder.fit.architecture import Architecture
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.engines.traits import Buffers, Storage

EMBEDDING_BLOCK = 32
UNQUANTIZED_BITS = 16
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
    kv_bits: int = 32  # what the ONNX Runtime CPU engine caches in


@dataclass(frozen=True)
class Calibration:
    """What measurements of an engine say beyond the arithmetic."""

    engine: str
    engine_version: str
    machine: str  # where it was measured
    points: int  # how many measurements
    constant_bytes: int  # interpreter, libraries
    linear_copies: float  # > 1 where what the engine multiplies with is larger than what is stored
    embedding_copies: float
    logits_bytes_max: int  # the prompt is read in slices whose logits stay below this
    error_fraction: float  # worst relative error over the measured points
    largest_parameters: int | None = None  # of the models measured: beyond it is extrapolation
    longest_context_tokens: int | None = None  # measured
    tokenizer_bytes_per_token: float = 0.0  # of the vocabulary
    logits_copies: float = 1.0  # of one slice's, at the peak
    lookup_table_mapped: bool = True  # an untied embedding stays in the file of weights
    block_sums: float = 0.0  # for each scale, floats of its size that repacking adds
    file_page_bytes: int = 0  # of the file that one embedding looked up may bring in
    sliding_window_cache: bool = False  # whether a windowed layer caches its window only
    head_dim_multiple: int = 1  # heads are cached with zeros up to a multiple of so many elements
    of_this_board: bool = False  # measured on the very board the prediction is for, by `edgewright calibrate`

    def __str__(self) -> str:
        measurements = f"{self.points} measurement{'s' * (self.points != 1)}"
        where = f"calibrated on this board, {measurements}" if self.of_this_board else measurements
        return f"{where} of {self.engine} {self.engine_version} on {self.machine}"


@dataclass(frozen=True)
class TensorClass:
    """The weights of one kind, as the export stores them."""

    name: str  # linear, embedding, head, norm
    parameters: int
    codes_bytes: int  # packed integers, or floats where not quantized
    scales_bytes: int
    zeros_bytes: int

    @property
    def stored_bytes(self) -> int:
        """Codes, scales and zero points together."""
        return self.codes_bytes + self.scales_bytes + self.zeros_bytes


@dataclass(frozen=True)
class PeakMemory:
    """A predicted peak in bytes, by what takes it."""

    tensors: tuple[TensorClass, ...]  # a tied embedding and head are one class, `embedding`
    tied: bool
    kv_cache_bytes: int
    layer_activation_bytes: int  # the widest layer of one slice of the prompt
    logits_bytes: int  # of that slice
    lookup_bytes: int  # pages of the file that the slice's embeddings are read from
    runtime_bytes: int  # interpreter, libraries, tokenizer, allocator
    second_copies_bytes: int  # weights that the engine repacks and keeps
    load_peak_bytes: (
        int  # while loading, with pages of the weights' file that the kernel takes back when it must
    )
    mapped_bytes: int = 0  # of the weights: looked up in the file, in memory only where used

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights as stored."""
        return sum(tensor.stored_bytes for tensor in self.tensors)

    @property
    def linear_bytes(self) -> int:
        """Stored bytes of the projections."""
        return self._stored("linear")

    @property
    def embedding_bytes(self) -> int:
        """Bytes of the embedding and the head, without a table that stays in the file."""
        return self._stored("embedding") + self._stored("head") - self.mapped_bytes

    @property
    def norm_bytes(self) -> int:
        """Stored bytes of the normalizations."""
        return self._stored("norm")

    @property
    def activation_bytes(self) -> int:
        """Everything that lives only while a slice of the prompt is read."""
        return self.layer_activation_bytes + self.logits_bytes + self.lookup_bytes

    @property
    def engine_bytes(self) -> int:
        """What the engine adds to the arithmetic: its runtime and second copies."""
        return self.runtime_bytes + self.second_copies_bytes

    @property
    def steady_bytes(self) -> int:
        """While serving with the whole context in use."""
        resident = self.weights_bytes - self.mapped_bytes
        return resident + self.kv_cache_bytes + self.activation_bytes + self.engine_bytes

    @property
    def peak_bytes(self) -> int:
        """What must fit: while loading the engine holds no more that the kernel could not take back."""
        return self.steady_bytes

    def _stored(self, name: str) -> int:
        return sum(tensor.stored_bytes for tensor in self.tensors if tensor.name == name)


@lru_cache(maxsize=32)
def load_calibration(engine: str, machine: str = "x86_64") -> Calibration:
    """Returns the shipped calibration of an engine on aarch64 or x86_64; that of x86_64 where only it was measured.

    Raises InputError where there is none.
    """
    folder = resources.files(__package__) / "calibrations"
    file = folder / f"{engine}.aarch64.json"
    if machine != "aarch64" or not file.is_file():
        file = folder / f"{engine}.json"
    if not file.is_file():
        raise InputError(f"There is no memory calibration for the engine {engine!r}.")
    return Calibration(**json.loads(file.read_text(encoding="utf-8")))


def predict_memory(architecture: Architecture, m: Configuration, calibration: Calibration) -> PeakMemory:
    """h(m̂) in bytes, term by term (see the module)."""
    model = architecture.with_layers(m.layers)
    traits = engine_traits(calibration.engine)
    tensors = stored_tensors(model, m, traits.storage)
    stored = {tensor.name: tensor.stored_bytes for tensor in tensors}
    head = stored.get("head", stored["embedding"])
    copies = (calibration.linear_copies - 1) * stored["linear"] + (calibration.embedding_copies - 1) * head
    repacked = round(copies + calibration.block_sums * sum(tensor.scales_bytes for tensor in tensors))
    if "head" not in stored and m.embedding_bits in traits.storage.repacked_table_bits:
        repacked += head
    runtime = calibration.constant_bytes + round(calibration.tokenizer_bytes_per_token * model.vocab_size)
    buffers = (traits.buffers or sliced_buffers)(model, m, calibration)
    in_file = calibration.lookup_table_mapped and not model.tied_embeddings
    return PeakMemory(
        tensors=tensors,
        tied="head" not in stored,
        kv_cache_bytes=_kv_elements(model, m, calibration) * m.concurrency * m.kv_bits // 8,
        layer_activation_bytes=buffers.layer_activation_bytes,
        logits_bytes=buffers.logits_bytes,
        lookup_bytes=buffers.lookup_bytes,
        runtime_bytes=runtime,
        second_copies_bytes=repacked,
        load_peak_bytes=runtime + stored["linear"] + head + repacked + head,
        mapped_bytes=stored["embedding"] if in_file else 0,
    )


def sliced_buffers(model: Architecture, m: Configuration, calibration: Calibration) -> Buffers:
    """Buffers of ONNX Runtime's worker, which reads a prompt in slices and looks embeddings up in the file."""
    slice_tokens = prompt_slice_tokens(model, m, calibration)
    per_token = 2 * model.hidden_size + 3 * model.intermediate_size + model.heads * m.context_tokens
    logits = slice_tokens * FLOAT_BYTES * model.vocab_size
    table = _table(model, m, engine_traits(calibration.engine).storage)
    return Buffers(
        slice_tokens * FLOAT_BYTES * per_token,
        round(calibration.logits_copies * logits),
        looked_up_bytes(table.stored_bytes, slice_tokens, calibration.file_page_bytes),
    )


def prompt_slice_tokens(model: Architecture, m: Configuration, calibration: Calibration) -> int:
    """Tokens of a prompt that are read at once."""
    most = max(1, calibration.logits_bytes_max // (FLOAT_BYTES * model.vocab_size))
    return min(most, m.context_tokens)


def looked_up_bytes(table_bytes: int, tokens: int, page_bytes: int) -> int:
    """Expected size of the table's pages that so many of its rows, taken at random, lie in."""
    missed = max(0.0, 1 - page_bytes / table_bytes) ** tokens
    return round(table_bytes * (1 - missed))


def _kv_elements(model: Architecture, m: Configuration, calibration: Calibration) -> int:
    head_dim = padded_head_dim(model.head_dim, calibration.head_dim_multiple)
    cached = model if head_dim == model.head_dim else replace(model, head_dim=head_dim)
    if calibration.sliding_window_cache:
        return cached.kv_elements(m.context_tokens)
    return 2 * cached.layers * cached.kv_heads * cached.head_dim * m.context_tokens


def padded_head_dim(head_dim: int, multiple: int) -> int:
    """Returns the elements of a head in the cache: the next multiple of what the engine takes."""
    return -(-head_dim // multiple) * multiple


def stored_tensors(model: Architecture, m: Configuration, storage: Storage) -> tuple[TensorClass, ...]:
    """Returns the weights as an engine's file stores them, class by class: linear, embedding, head if apart, norm."""
    linear = _quantized(
        "linear",
        model.linear_parameters,
        m.weight_bits,
        storage.block_weights or m.group_size,
        storage.scale_bits,
    )
    norm = _floats("norm", model.norm_parameters)
    embedding = _table(model, m, storage)
    if model.tied_embeddings and not storage.table_always_apart:
        return (linear, embedding, norm)
    head = _quantized(
        "head", model.embedding_parameters, m.embedding_bits, EMBEDDING_BLOCK, storage.scale_bits
    )
    return (linear, embedding, head, norm)


def _table(model: Architecture, m: Configuration, storage: Storage) -> TensorClass:
    """Returns what embeddings are looked up in."""
    if not (model.tied_embeddings or storage.untied_table_quantized):
        return _floats("embedding", model.embedding_parameters)
    return _quantized(
        "embedding", model.embedding_parameters, m.embedding_bits, EMBEDDING_BLOCK, storage.scale_bits
    )


def _quantized(name: str, parameters: int, bits: int, block: int, scale_bits: int) -> TensorClass:
    """Symmetric codes and one scale a block, no zero points; 16 bits are floats."""
    if bits == UNQUANTIZED_BITS:
        return TensorClass(name, parameters, parameters * bits // 8, 0, 0)
    return TensorClass(name, parameters, parameters * bits // 8, parameters // block * scale_bits // 8, 0)


def _floats(name: str, parameters: int) -> TensorClass:
    return TensorClass(name, parameters, parameters * FLOAT_BYTES, 0, 0)

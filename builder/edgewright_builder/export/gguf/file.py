"""Writes a checkpoint as one GGUF file: projections in Q4_0 code for code, tables rounded, the rest in floats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgewright.errors import InputError
from edgewright_builder.export.gguf.blocks import neighbours_order, q4_0_exact
from edgewright_builder.export.gguf.checkpoint import (
    QuantizedLinear,
    Weight,
    read_weights,
)
from edgewright_builder.export.gguf.metadata import write_metadata
from edgewright_builder.export.gguf.rope import rope_tensors
from edgewright_builder.export.gguf.tokenizer import write_tokenizer
from edgewright_builder.fit.configuration.llama_cpp import (
    LLAMA_CPP,
    facts_of,
    model_type_of,
    why_not_llama_cpp,
)
from edgewright_builder.models.folder import read_config
from edgewright_builder.quantization.gptq_settings import require_holdable

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

TABLES = ("token_embd.weight", "output.weight")
OUTPUT = "output.weight"


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of the file: blocks as bytes, or floats."""

    name: str
    data: NDArray[Any]
    type: GGMLQuantizationType

    def dequantized(self) -> GgufTensor:
        """Returns the tensor with the values of its blocks in float32."""
        from gguf import GGMLQuantizationType, quants

        values = np.ascontiguousarray(quants.dequantize(self.data, self.type), np.float32)
        return GgufTensor(self.name, values, GGMLQuantizationType.F32)


def write_gguf(
    checkpoint: Path, embedding_bits: int, path: Path, name: str, *, dequantized: bool = False
) -> None:
    """Writes `path` from a symmetric 4-bit GPTQ checkpoint, or from one that is not quantized.

    `dequantized` holds the values of the blocks in float32, which llama.cpp multiplies in float32 instead of int8.
    Raises InputError naming what of the checkpoint llama.cpp or the format can't hold.
    """
    from gguf import GGUFWriter, LlamaFileType

    config = read_config(checkpoint)
    why = why_not_llama_cpp(config)
    if why is not None:
        raise InputError(f"{checkpoint} can't be written as GGUF: {why}.")
    require_holdable(checkpoint)
    quantized = "quantization_config" in config
    writer = GGUFWriter(path, LLAMA_CPP[model_type_of(config)].architecture)
    write_metadata(writer, config, name)
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_0 if quantized else LlamaFileType.ALL_F32)
    write_tokenizer(writer, checkpoint, facts_of(config)["vocab_size"])
    for tensor in gguf_tensors(checkpoint, config, embedding_bits if quantized else None):
        if dequantized:
            tensor = tensor.dequantized()
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(
    checkpoint: Path, config: Mapping[str, Any], embedding_bits: int | None
) -> Iterator[GgufTensor]:
    """Yields the tensors by llama.cpp's names. `embedding_bits` None leaves embedding and head in floats.

    Raises InputError for a tensor that llama.cpp has no place for, and in the end for one that is missing.
    """
    import gguf

    model_type, facts = model_type_of(config), facts_of(config)
    family = LLAMA_CPP[model_type]
    architectures = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(architectures[family.architecture], facts["num_hidden_layers"])
    written: set[str] = set()
    for source, weight in read_weights(checkpoint):
        quantized_name = f"{source}.weight" if isinstance(weight, QuantizedLinear) else source
        name = names.get_name(_decoder_name(quantized_name), (".weight", ".bias"))
        if name is None:
            if facts["tie_word_embeddings"] and source == "lm_head.weight":
                continue
            raise InputError(
                f"{checkpoint} holds {source}, for which llama.cpp's {family.architecture} has no place."
            )
        if name == OUTPUT and facts["tie_word_embeddings"]:
            continue
        written.add(name)
        yield _tensor(name, _arranged(source, weight, model_type, facts), embedding_bits, family.norm_offset)
    _require_whole(checkpoint, written, facts)
    for name, factors in rope_tensors(model_type, facts).items():
        yield GgufTensor(name, factors, gguf.GGMLQuantizationType.F32)


def _require_whole(checkpoint: Path, written: Set[str], facts: Mapping[str, Any]) -> None:
    """Raises InputError for a tensor that one layer has and another lacks, and for a missing table."""
    parts = {name.split(".", 2)[2] for name in written if name.startswith("blk.")}
    needed = {f"blk.{layer}.{part}" for layer in range(facts["num_hidden_layers"]) for part in parts}
    needed |= {"token_embd.weight", "output_norm.weight"}
    needed |= set() if facts["tie_word_embeddings"] else {OUTPUT}
    if missing := sorted(needed - written):
        raise InputError(
            f"{checkpoint} lacks what llama.cpp calls {missing[0]}, of {facts['num_hidden_layers']} layers. "
            "Build or fetch it again."
        )


def _decoder_name(name: str) -> str:
    """Returns the name as text-only checkpoints have it."""
    return name.replace("model.language_model.", "model.").replace("language_model.model.", "model.")


def _arranged(source: str, weight: Weight, model_type: str, facts: Mapping[str, Any]) -> Weight:
    """Returns the rows of queries and keys, and their biases, in the order that llama.cpp turns them in."""
    if not LLAMA_CPP[model_type].turns_neighbours:
        return weight
    module = source.removesuffix(".weight").removesuffix(".bias").rsplit(".", 1)[-1]
    heads = {"q_proj": facts["num_attention_heads"], "k_proj": facts["num_key_value_heads"]}.get(module)
    if heads is None:
        return weight
    rows = weight.codes.shape[0] if isinstance(weight, QuantizedLinear) else weight.shape[0]
    order = neighbours_order(rows, heads)
    return weight.reordered(order) if isinstance(weight, QuantizedLinear) else weight[order]


def _tensor(name: str, weight: Weight, embedding_bits: int | None, norm_offset: float) -> GgufTensor:
    from gguf import GGMLQuantizationType as Type
    from gguf import quants

    if isinstance(weight, QuantizedLinear):
        return GgufTensor(name, q4_0_exact(weight.codes, weight.scales), Type.Q4_0)
    if name in TABLES and embedding_bits is not None:
        kind = Type.Q8_0 if embedding_bits == 8 else Type.Q4_0
        return GgufTensor(name, quants.quantize(weight, kind), kind)
    if name.endswith("norm.weight"):
        weight = weight + np.float32(norm_offset)
    return GgufTensor(name, np.ascontiguousarray(weight, np.float32), Type.F32)

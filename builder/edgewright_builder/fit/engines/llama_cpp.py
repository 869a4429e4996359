"""llama.cpp: one GGUF file, on the CPU or a GPU.

    linear   4.5 bits: a block of 32 codes and a float16 scale, whatever the group
    tables   8.5 or 4.5 bits; an untied embedding is one more of them
             (a tied one of 4 bits is held twice: repacked for the head, and as it is for embeddings)
    KV cache float16, of windowed layers no more than the window and a slice

The agent's server reads a prompt in slices of 512 tokens and computes the logits of its last token alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewright_builder.fit.configuration.llama_cpp import (
    LLAMA_CPP,
    as_llama_cpp_serves,
    longest_for_llama_cpp,
    model_type_of,
    why_not_llama_cpp,
)
from edgewright_builder.fit.engines.traits import Buffers, Config, EngineTraits, ProofTraits, Storage

if TYPE_CHECKING:
    from edgewright_builder.fit.architecture import Architecture
    from edgewright_builder.fit.memory import Calibration, Configuration

SLICE_TOKENS = 512
FLOAT_BYTES = 4
# Float32 leaves some 1e-5 of the spread, 1e-4 in few; GELU, which ggml looks up in float16, up to 6e-4.
TOLERANCE = 1e-3
MASK_BYTES = 6  # of each pair of token and position: which of them see one another, in float32 and in float16


def why_not(config: Config, layers: int) -> str | None:
    """Returns what of the configuration, cut to so many layers, llama.cpp can't compute; None where it is nothing."""
    text = config.get("text_config")
    facts = text if isinstance(text, dict) else config
    if model_type_of(config) == "smollm3" and layers != facts["num_hidden_layers"]:
        return (
            "llama.cpp takes each fourth layer of SmolLM3 to have no positions, so none may go. Keep every layer "
            "(`student.depth: full`)"
        )
    cut = {**facts, "num_hidden_layers": layers}
    return why_not_llama_cpp({**config, "text_config": cut} if facts is text else cut)


def buffers(model: Architecture, m: Configuration, calibration: Calibration) -> Buffers:
    """The widest layer of one slice of the prompt, and one row of logits for each request."""
    tokens = min(SLICE_TOKENS, m.context_tokens)
    query = model.heads * model.head_dim
    per_token = 3 * model.hidden_size + 2 * query + 2 * model.intermediate_size
    logits = round(calibration.logits_copies * m.concurrency * FLOAT_BYTES * model.vocab_size)
    return Buffers(tokens * (FLOAT_BYTES * per_token + MASK_BYTES * m.context_tokens), logits)


TRAITS = EngineTraits(
    "llama.cpp", "gpu", weight_bits=4, embedding_bits=(8, 4), kv_bits=(16,), format="gguf", takes_adapters=False,
    model_types=frozenset({*LLAMA_CPP, "gemma3"}),
    storage=Storage(scale_bits=16, block_weights=32, untied_table_quantized=True, repacked_table_bits=(4,)),
    buffers=buffers, group_sizes=(32, 64, 128), refuses=why_not, longest=longest_for_llama_cpp,
    proof=ProofTraits(TOLERANCE, as_llama_cpp_serves),
)  # fmt: skip

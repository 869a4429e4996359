"""vLLM: the GPTQ checkpoint itself, on a GPU."""

from __future__ import annotations

from edgewright_builder.fit.engines.onnx import MODEL_TYPES
from edgewright_builder.fit.engines.traits import EngineTraits

# Compared with others only where it is asked for: its memory has been measured with its CPU build, and a board's GPU
# takes some of its own. vLLM 0.32 loads the same types; GPTQ leaves embedding and head in 16 bits, as its KV cache is.
TRAITS = EngineTraits(
    "vllm", "gpu", weight_bits=4, embedding_bits=(16,), kv_bits=(16,), format="gptq", takes_adapters=False,
    model_types=MODEL_TYPES, recommended=False,
)  # fmt: skip

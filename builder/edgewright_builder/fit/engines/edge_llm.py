"""TensorRT Edge-LLM: the GPTQ checkpoint, from which the board builds its engine. No board has run it for us.

Its memory is what NVIDIA has published for version 0.9.0 (`published_memory`), not measured here:

    peak = weights + KV cache + a + b · tokens · 2 · (2·intermediate + 2·hidden)

4-bit linears with a float16 scale for each 128, embedding and head apart in float16, KV cache in float16; b counts the
buffers of a prompt, as wide as an MLP, that TensorRT plans for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewright_builder.fit.engines.traits import Buffers, EngineTraits, Storage

if TYPE_CHECKING:
    from edgewright_builder.fit.architecture import Architecture
    from edgewright_builder.fit.memory import Calibration, Configuration

PROMPT_TOKENS_MAX = 2048  # maxInputLen of the published runs
HALF_BYTES = 2
# tensorrt_edgellm 0.11.0 names these among its checkpoints. Its INT4 kernel for Orin takes groups of 128 only.
MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
GROUP_SIZES = (128,)


def buffers(model: Architecture, m: Configuration, calibration: Calibration) -> Buffers:
    """What TensorRT plans for a prompt: `logits_copies` of the calibration holds the published b."""
    tokens = min(PROMPT_TOKENS_MAX, m.context_tokens)
    width = 2 * (model.intermediate_size + model.hidden_size)
    return Buffers(round(calibration.logits_copies * tokens * HALF_BYTES * width), 0)


TRAITS = EngineTraits(
    "tensorrt-edge-llm", "gpu", weight_bits=4, embedding_bits=(16,), kv_bits=(16,), format="gptq",
    takes_adapters=False, model_types=MODEL_TYPES,
    storage=Storage(scale_bits=16, table_always_apart=True, untied_table_quantized=True),
    buffers=buffers, group_sizes=GROUP_SIZES, tried=False, runs_on_host=False,
)  # fmt: skip

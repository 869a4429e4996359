"""ONNX Runtime: the graph that onnxruntime-genai's builder exports, computed on the CPU."""

from __future__ import annotations

from edgewright_builder.fit.engines.traits import EngineTraits, ProofTraits

# onnxruntime-genai 0.18.0: the model types of its models/builder.py; the wheel's CUDA code is for no Jetson, so it
# computes on the CPU, where the KV cache is float32.
MODEL_TYPES = frozenset({
    "llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma", "gemma2", "gemma3_text", "gemma3", "phi3", "granite",
})  # fmt: skip
TOLERANCE = 2e-4  # float32 leaves some 1e-5; a feature that is dropped leaves 1e-3 and more
TRAITS = EngineTraits(
    "onnxruntime-genai", "cpu", weight_bits=4, embedding_bits=(8, 4), kv_bits=(32,), format="onnx",
    takes_adapters=True, model_types=MODEL_TYPES, proof=ProofTraits(TOLERANCE),
)  # fmt: skip

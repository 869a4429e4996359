"""Quantization: rounding to a 4-bit grid, GPTQ checkpoints, delta-aware GPTQ."""

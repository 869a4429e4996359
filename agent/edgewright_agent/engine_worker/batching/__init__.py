"""Continuous batching: which request takes which part of the KV cache, and what the model computes next."""

"""Proves that what is exported computes what transformers computes: a tiny model of the same configuration is tried."""

"""Upkeep: garbage collection, scrubbing, recovery after a crash, free space."""

"""Signed artifacts: writing, verifying, chunking, comparing, mirroring."""

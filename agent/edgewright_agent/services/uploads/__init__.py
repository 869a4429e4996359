"""Uploads: the parts of a WriteBlob stream, gathered and written to the store."""

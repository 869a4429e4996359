"""Uploads: a WriteBlob stream is read, put together chunk by chunk, and written to the store."""

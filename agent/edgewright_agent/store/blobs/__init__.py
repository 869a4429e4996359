"""Blobs: files named by their digest, the chunks they consist of, and uploads that become blobs."""

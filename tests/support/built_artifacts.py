"""Small artifacts for the tests of packaging and pushing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright_builder.artifact.artifact import Artifact, open_artifact, write_artifact

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))  # a release key that tests trust
FIELDS: dict[str, Any] = {
    "name": "tiny",
    "version": "1.0",
    "device_profiles": ("this-host",),
    "engine": {"kind": "fake"},
    "model": {
        "architecture": "llama", "parameters": 1000, "layers": 2, "hidden_size": 8, "vocab_size": 32,
        "tied_embeddings": True, "weight_bits": 4, "embedding_bits": 8, "group_size": 64,
    },
    "limits": {"context_tokens": 256},
    "memory": {
        "budget_bytes": 2**30, "predicted_peak_bytes": 2**20, "error_bytes": 1024, "calibrated_on": "tests",
    },
}  # fmt: skip


def make_artifact(
    folder: Path, contents: Mapping[str, bytes], key: Ed25519PrivateKey, **fields: Any
) -> Artifact:
    """An artifact `folder` of files with these contents, signed with `key`."""
    sources = folder.with_name(folder.name + "-sources")
    for path, data in contents.items():
        (sources / path).parent.mkdir(parents=True, exist_ok=True)
        (sources / path).write_bytes(data)
    write_artifact(folder, {path: sources / path for path in contents}, FIELDS | fields, key)
    return open_artifact(folder)

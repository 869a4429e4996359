"""Stage 9, package: the exported model, what it is and where it comes from, listed and signed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright_builder.artifact.artifact import write_artifact
from edgewright_builder.artifact.fields import artifact_files


def package(
    export: Path,
    fields: Mapping[str, Any],
    signing_key: Ed25519PrivateKey,
    artifact: Path,
    bf16_bytes: int,
) -> dict[str, Any]:
    """Writes the signed artifact and returns its digest, size and ratio to the 16-bit student."""
    digest = write_artifact(artifact, artifact_files(export), fields, signing_key)
    size_bytes = sum(file.stat().st_size for file in artifact.rglob("*") if file.is_file())
    return {"artifact": digest, "size_bytes": size_bytes, "times_smaller_than_bf16": bf16_bytes / size_bytes}

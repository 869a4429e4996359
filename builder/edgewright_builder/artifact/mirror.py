"""The static layout of a mirror: an OCI image layout with an artifact's files as its blobs.

Any web server can serve the folder, and any OCI tool can copy it to a registry (`skopeo copy
oci:DIR docker://registry/name:tag`, `oras cp --from-oci-layout`), where boards find the same blobs.
Format: https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgewright.address import Address
from edgewright.errors import InputError, OutsideError
from edgewright.manifest import Mirror
from edgewright_builder.artifact.artifact import Artifact, open_artifact, verify_artifact

ARTIFACT_TYPE = "application/vnd.edgewright.artifact"
FILE_TYPE = "application/vnd.edgewright.file"
# The image-spec's descriptor of an empty JSON object, the config of artifacts that have none.
EMPTY = {
    "mediaType": "application/vnd.oci.empty.v1+json",
    "digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}",
    "size": 2,
}


def parse_mirror(text: str) -> Mirror:
    """`https://host/path` is a folder written by `export`, `oci://registry/name` a repository of a registry.

    Raises InputError. A registry on this machine is called without TLS, as every OCI tool does.
    """
    scheme, _, rest = text.rstrip("/").partition("://")
    try:
        if scheme != "oci":
            return Mirror(layout="oci-layout", url=f"{scheme}://{rest}")
        registry, _, name = rest.partition("/")
        local = Address(urlsplit(f"//{registry}").hostname or "", 0).is_loopback
        return Mirror(layout="oci-registry", url=f"{'http' if local else 'https'}://{registry}/v2/{name}")
    except ValueError:
        message = f"{text!r} is no mirror: give https://HOST/PATH or oci://REGISTRY/NAME, without a query."
        raise InputError(message) from None


def mirrors_of(folder: Path) -> tuple[Mirror, ...]:
    """Returns the mirrors an artifact names. Raises InputError."""
    return open_artifact(folder).manifest.mirrors


def export(folder: Path, target: Path) -> tuple[int, int]:
    """Writes an artifact's files to `target` as an OCI image layout; returns (blobs written, their bytes).

    Blobs that are there stay, so one folder can hold many artifacts. Raises InputError for an altered
    artifact, OutsideError if the disk fails.
    """
    artifact = verify_artifact(folder, None)
    if target.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{target} lies in the artifact itself, which holds what is signed; choose another folder."
        )
    _entries(target / "index.json")  # before anything is written
    try:
        written = [_put_file(target, artifact, index) for index in range(len(artifact.manifest.files))]
        _put(target, b"{}")
        manifest = json.dumps(_oci_manifest(artifact), sort_keys=True).encode()
        _put(target, manifest)
        _write(target / "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _write(target / "index.json", json.dumps(_index(target, artifact, manifest), indent=1).encode())
    except OSError as error:
        raise OutsideError(
            f"{error.filename or target} can't be written ({error.strerror}). Check the disk, or choose another folder."
        ) from error
    return sum(size is not None for size in written), sum(size or 0 for size in written)


def _put_file(target: Path, artifact: Artifact, index: int) -> int | None:
    file = artifact.manifest.files[index]
    path = _blob(target, file.sha256)
    if path.is_file() and path.stat().st_size == file.size_bytes:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    shutil.copyfile(artifact.path(file), temporary)
    temporary.replace(path)
    return file.size_bytes


def _oci_manifest(artifact: Artifact) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": ARTIFACT_TYPE,
        "config": EMPTY,
        "layers": [
            {
                "mediaType": FILE_TYPE,
                "digest": f"sha256:{file.sha256}",
                "size": file.size_bytes,
                "annotations": {"org.opencontainers.image.title": file.path},
            }
            for file in artifact.manifest.files
        ],
        "annotations": {"dev.edgewright.release": artifact.digest},
    }


def _index(target: Path, artifact: Artifact, manifest: bytes) -> dict[str, Any]:
    """Returns the index with this artifact in it; one of the same name and version is replaced."""
    name = f"{artifact.manifest.name}-{artifact.manifest.version}"
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": ARTIFACT_TYPE,
        "digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": name},
    }
    others = [
        other for other in _entries(target / "index.json") if other.get("annotations") != entry["annotations"]
    ]
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [*others, entry],
    }


def _entries(index: Path) -> list[dict[str, Any]]:
    if not index.exists():
        return []
    try:
        entries = json.loads(index.read_bytes())["manifests"]
    except (ValueError, KeyError, TypeError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{index} is no index of an OCI image layout; choose another folder.")
    return entries


def _put(target: Path, data: bytes) -> None:
    path = _blob(target, hashlib.sha256(data).hexdigest())
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, data)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(data)
    temporary.replace(path)


def _blob(target: Path, sha256: str) -> Path:
    return target / "blobs" / "sha256" / sha256

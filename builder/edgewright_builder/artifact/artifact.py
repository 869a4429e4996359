"""What is shipped: a folder of files, `manifest.json` that lists them, and `manifest.sig` that signs it.

The folder appears whole or not at all: it is built beside its place and renamed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from edgewright.dsse import PAYLOAD_TYPE, encode_envelope, envelope_over, key_id, pae, verify_envelope
from edgewright.errors import InputError, OutsideError
from edgewright.manifest import Chunk, File, Manifest, manifest_digest, parse_manifest
from edgewright.v1.common_pb2 import Reason
from edgewright_builder.artifact.chunking import chunk_sizes

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.sig"


@dataclass(frozen=True)
class Artifact:
    """An artifact on this disk. Opening it checks the manifest's form; `verify_artifact` checks the rest."""

    folder: Path
    manifest: Manifest
    manifest_bytes: bytes
    signature_bytes: bytes

    @property
    def digest(self) -> str:
        """The artifact's identity: SHA-256 of the manifest, in hex."""
        return manifest_digest(self.manifest_bytes)

    def path(self, file: File) -> Path:
        """Returns where a file of the manifest lies."""
        return self.folder / file.path


def write_artifact(
    folder: Path,
    files: Mapping[str, Path],
    fields: Mapping[str, Any],
    signing_key: Ed25519PrivateKey,
) -> str:
    """Copies `files` (path in the artifact → where it is now) to `folder`, lists and signs them.

    `fields` are those of `Manifest` but `files`. An artifact that stands in `folder` is replaced. The same
    files, fields and key give the same bytes. Returns the artifact's digest. Raises InputError for a field
    the manifest refuses, OutsideError if the disk fails.
    """
    folder = folder.resolve()
    temporary = folder.with_name(folder.name + ".new")
    with _disk_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            for path, source in files.items():
                _copy(source, temporary / path, path)
            listed = tuple(describe_file(temporary / path, path) for path in sorted(files))
            manifest = _manifest(fields, listed).to_bytes()
            _write(temporary / MANIFEST_NAME, manifest)
            _write(temporary / SIGNATURE_NAME, sign_manifest(manifest, signing_key))
            _publish(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return manifest_digest(manifest)


def sign_manifest(manifest: bytes, signing_key: Ed25519PrivateKey) -> bytes:
    """Returns the bytes of `manifest.sig`; the same manifest and key give the same bytes."""
    signature = signing_key.sign(pae(PAYLOAD_TYPE, manifest))
    return encode_envelope(manifest, {key_id(signing_key.public_key()): signature})


def resign_artifact(folder: Path, signing_key: Ed25519PrivateKey, **changes: Any) -> Artifact:
    """Signs an artifact again, with these fields of its manifest changed; its files stay as they are.

    An unchanged manifest keeps the signatures it has, for boards that want several. Raises InputError for a
    field the manifest refuses.
    """
    artifact = open_artifact(folder)
    files, kept = artifact.manifest.files, artifact.manifest.model_dump(exclude={"files"})
    manifest = _manifest({**kept, **changes}, files).to_bytes() if changes else artifact.manifest_bytes
    signatures = {key_id(signing_key.public_key()): signing_key.sign(pae(PAYLOAD_TYPE, manifest))}
    if manifest == artifact.manifest_bytes:
        signatures = {**_signatures_over(manifest, artifact.signature_bytes), **signatures}
    with _disk_errors(folder):
        for name, data in (
            (MANIFEST_NAME, manifest),
            (SIGNATURE_NAME, encode_envelope(manifest, signatures)),
        ):
            _write(folder / f"{name}.new", data)
            (folder / f"{name}.new").replace(folder / name)
        _sync(folder)
    return open_artifact(folder)


def _signatures_over(manifest: bytes, envelope: bytes) -> Mapping[str, bytes]:
    """Returns the signatures over this manifest by key id. There are none where the envelope signs another manifest, as
    after a power cut between two renames.
    """
    try:
        return envelope_over(manifest, envelope).signatures
    except InputError:
        return {}


def open_artifact(folder: Path) -> Artifact:
    """Reads manifest and signature; raises InputError if there is none or the manifest is invalid."""
    for name in (MANIFEST_NAME, SIGNATURE_NAME):
        if not (folder / name).is_file():
            raise InputError(f"{folder} is no artifact: it has no {name}; a build writes RUN/artifact.")
    with _disk_errors(folder):
        manifest = (folder / MANIFEST_NAME).read_bytes()
        signature = (folder / SIGNATURE_NAME).read_bytes()
    return Artifact(folder, parse_manifest(manifest), manifest, signature)


def verify_artifact(folder: Path, public_key: Ed25519PublicKey | None) -> Artifact:
    """Opens an artifact and re-hashes every file; raises InputError that names the first altered one.

    The signature is checked against `public_key`; without one it must still be over this manifest, but who
    signed is left to the device (RefusedError `KEY_UNTRUSTED` if it is another key than `public_key`).
    """
    artifact = open_artifact(folder)
    if public_key is not None:
        verify_envelope(artifact.manifest_bytes, artifact.signature_bytes, [public_key])
    with _disk_errors(folder):
        for file in artifact.manifest.files:
            _verify_file(artifact.path(file), file)
    return artifact


def describe_file(source: Path, path: str) -> File:
    """Returns a manifest's entry for the file `source`, to be found at `path` in the artifact."""
    sizes = chunk_sizes(source)
    whole = hashlib.sha256()
    chunks = []
    with source.open("rb") as file:
        for size_bytes in sizes:
            data = file.read(size_bytes)
            whole.update(data)
            chunks.append(Chunk(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)))
    return File(path=path, sha256=whole.hexdigest(), size_bytes=sum(sizes), chunks=tuple(chunks))


def _copy(source: Path, target: Path, path: str) -> None:
    if path in (MANIFEST_NAME, SIGNATURE_NAME):
        raise InputError(f"{path} is the artifact's own; give {source} another path.")
    if not source.is_file():
        raise InputError(f"{source}, to be packed as {path}, is missing; export the model again.")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    _sync(target)


def _manifest(fields: Mapping[str, Any], files: tuple[File, ...]) -> Manifest:
    try:
        return Manifest(**fields, files=files)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        message = f"The manifest can't be written: {where}: {first['msg']}."
        raise InputError(message, Reason.REASON_MANIFEST_INVALID) from None


def _verify_file(path: Path, file: File) -> None:
    if not path.is_file():
        raise _altered(path, "is missing")
    size_bytes = path.stat().st_size
    if size_bytes != file.size_bytes:
        raise _altered(path, f"has {size_bytes} bytes, the manifest says {file.size_bytes}")
    whole = hashlib.sha256()
    with path.open("rb") as data:
        for chunk in file.chunks:
            part = data.read(chunk.size_bytes)
            whole.update(part)
            if hashlib.sha256(part).hexdigest() != chunk.sha256:
                raise _altered(path, f"is not the file that was signed, near byte {data.tell() - len(part)}")
    if whole.hexdigest() != file.sha256:
        raise _altered(path, f"has SHA-256 {whole.hexdigest()[:12]}…, the manifest says {file.sha256[:12]}…")


def _altered(path: Path, why: str) -> InputError:
    message = f"{path} {why}. The artifact was altered after signing: build or copy it again."
    return InputError(message, Reason.REASON_DIGEST_MISMATCH)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(temporary: Path, folder: Path) -> None:
    for directory, _, _ in os.walk(temporary, topdown=False):
        _sync(Path(directory))
    if folder.exists():
        if not (folder / MANIFEST_NAME).is_file() and any(folder.iterdir()):
            raise InputError(f"{folder} holds something else than an artifact; choose another folder.")
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old)
    else:
        temporary.rename(folder)
    _sync(folder.parent)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name = error.filename or folder
        raise OutsideError(f"{name} can't be read or written ({error.strerror}). Check the disk.") from error

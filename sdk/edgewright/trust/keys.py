"""Reads what `--trust` names: public keys in PEM, a folder of them, or one trust document."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from edgewright.dsse import SIGNATURES_MAX
from edgewright.errors import EdgewrightError, InputError
from edgewright.trust.accepted_signatures import read_signed
from edgewright.trust.document import TrustDocument, pinned


def load_trust(paths: Iterable[Path]) -> TrustDocument | None:
    """Returns what a board starts from; None for no paths.

    One trust document, or any number of public keys and folders of `*.pub`. Raises InputError that names
    the file.
    """
    paths = list(paths)
    documents = [path for path in paths if path.suffix == ".json"]
    if documents and len(paths) > 1:
        raise InputError(f"--trust takes one trust document or public keys, not both: {documents[0]}.")
    if documents:
        return _load_document(documents[0])
    keys = load_trusted_keys(paths)
    if len(keys) > SIGNATURES_MAX:
        raise InputError(f"--trust names {len(keys)} keys; at most {SIGNATURES_MAX} can be trusted.")
    return pinned(keys) if keys else None


def load_trusted_keys(paths: Iterable[Path]) -> tuple[Ed25519PublicKey, ...]:
    """Returns the Ed25519 public keys in PEM files or folders of `*.pub`. Raises InputError that names the file."""
    return tuple(load_public_key(file) for path in paths for file in _key_files(path))


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Returns the Ed25519 public key in a PEM file. Raises InputError that names the file."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise InputError(f"The trusted key {path} can't be read: {error.strerror}.") from None
    except (ValueError, UnsupportedAlgorithm):
        message = f"{path} holds no PEM public key; use release.pub of the credentials."
        raise InputError(message) from None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path} holds no Ed25519 key; use release.pub of the credentials.")
    return key


def _key_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.pub"))
    if not found:
        raise InputError(
            f"The folder {path} holds no public key (*.pub); use release.pub of the credentials."
        )
    return found


def _load_document(path: Path) -> TrustDocument:
    try:
        return read_signed(path.read_bytes())
    except OSError as error:
        raise InputError(f"The trust document {path} can't be read: {error.strerror}.") from None
    except EdgewrightError as error:
        raise InputError(f"{path} is no trust document to start from: {error}") from None

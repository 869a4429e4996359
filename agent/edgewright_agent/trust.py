"""Whose releases this board runs: the public keys given with `--trust`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from edgewright_agent.errors import InputError


def load_trusted_keys(paths: Iterable[Path]) -> tuple[Ed25519PublicKey, ...]:
    """Ed25519 public keys in PEM files. Raises InputError that names the file."""
    return tuple(load_public_key(path) for path in paths)


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The Ed25519 public key in a PEM file. Raises InputError that names the file."""
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

"""Key files: PEM in, PEM out, mode 0600, and never one over another without being asked."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from edgewright.errors import InputError, OutsideError, RefusedError


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Returns the private release key in a PEM file; raises InputError if there is none."""
    pem = _read(path)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        message = f"{path} holds no unencrypted PEM private key; use release.key of the credentials."
        raise InputError(message) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path} holds no Ed25519 key; use release.key of the credentials.")
    return key


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """Returns the public half, as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """Returns the key as unencrypted PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_new(path: Path, data: bytes) -> None:
    """Writes a file with mode 0600. Raises RefusedError if there is one, OutsideError if the disk fails."""
    if path.exists():
        raise RefusedError(f"{path} exists already and is not overwritten; move it away first.")
    try:
        write_private(path, data)
    except OSError as error:
        raise OutsideError(
            f"{path} can't be written ({error.strerror}). Check the disk, or choose another folder."
        ) from error


def write_private(path: Path, data: bytes) -> None:
    """Replaces a file by one with mode 0600. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    # The mode is set when the file is made: a key is never readable by others, not even for a moment.
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def move_aside(folder: Path, files: Iterable[Path]) -> Path | None:
    """Moves those of the folder's files that exist to a folder of their own in it; None if none does. Raises OSError.

    A key that is lost is lost on every board, so nothing here overwrites one.
    """
    existing = [path for path in files if path.exists()]
    if not existing:
        return None
    aside = folder / f"replaced-{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%S.%fZ}"
    aside.mkdir(mode=0o700)
    for path in existing:
        path.rename(aside / path.name)
    return aside


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"The key {path} can't be read ({error.strerror}); use the folder of `edgewright keys create`."
        ) from error

"""TLS of the gRPC server: clients need a certificate from the authority that the agent was given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from edgewright.errors import InputError


@dataclass(frozen=True)
class TlsFiles:
    """The PEM files: this board's certificate and key, and the authority of its clients' certificates."""

    certificate: Path
    key: Path
    authority: Path


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Returns credentials that demand a client certificate. Raises InputError that names the wrong file."""
    certificate, key, authority = (_read(path) for path in (files.certificate, files.key, files.authority))
    parsed = _certificate(files.certificate, certificate)
    _certificate(files.authority, authority)
    if parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != _public(
        files.key, key
    ):
        raise InputError(f"{files.key} is not the key of the certificate {files.certificate}.")
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)


def validity_problem(files: TlsFiles, now: datetime) -> str | None:
    """Returns why nobody can connect now, with what to do: a certificate is not valid; None if all are.

    Raises InputError for a file that can't be read.
    """
    for path in (files.certificate, files.authority):
        certificate = _certificate(path, _read(path))
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        clock = f"the board's clock says {now:%Y-%m-%d %H:%M} UTC"
        if now < begin:
            return (
                f"{path} is valid from {begin:%Y-%m-%d %H:%M} UTC and {clock}: no client can connect before. Set the "
                "clock: `sudo timedatectl set-ntp true`."
            )
        if now >= end:
            return (
                f"{path} was valid until {end:%Y-%m-%d %H:%M} UTC and {clock}: no client can connect. Set the clock, "
                "or make a new one on the host with `edgewright keys certificate`."
            )
    return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None


def _certificate(path: Path, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise InputError(f"{path} holds no PEM certificate.") from None


def _public(path: Path, pem: bytes) -> bytes:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(f"{path} holds no unencrypted PEM private key.") from None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

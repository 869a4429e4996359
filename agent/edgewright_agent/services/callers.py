"""Reads who makes a call from its certificate: the certificate's digest and the roles it names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

ROLE_PREFIX = "edgewright:role:"  # of a URI among the subject's alternative names
CERTIFICATES_KEPT = 256  # parsed; a client shows the same one with every call

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class ClientCertificate:
    """The parts of a client's certificate that decide what it may do."""

    sha256: str  # of its DER, in hex
    roles: frozenset[str]  # empty unless it may be used by clients


def certificate_of(auth_context: Mapping[str, Iterable[bytes]]) -> ClientCertificate | None:
    """Returns the certificate that the call's TLS connection was verified with; None without TLS."""
    for pem in auth_context.get("x509_pem_cert", ()):
        return _parse(pem)
    return None


@lru_cache(maxsize=CERTIFICATES_KEPT)
def _parse(pem: bytes) -> ClientCertificate:
    certificate = x509.load_pem_x509_certificate(pem)
    sha256 = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    return ClientCertificate(sha256, _roles(certificate))


def _roles(certificate: x509.Certificate) -> frozenset[str]:
    """Returns the roles in URI names. A name certified by DNS or e-mail gives no role.

    A certificate that was not issued for clients gives none either: a board's own would make it a deployer.
    """
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return frozenset()
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        return frozenset()
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return frozenset(uri.removeprefix(ROLE_PREFIX) for uri in uris if uri.startswith(ROLE_PREFIX))

"""Certificates: an authority of one's own, and what it issues to boards and to their clients."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgewright.errors import InputError, RefusedError
from edgewright_builder.keys.key_files import private_pem

CA_DAYS = 3650
LABEL_MAX = 63  # characters between two dots of a host's name (RFC 1035, section 2.3.4)
# Years, because a board whose certificate has expired can't be reached to renew it.
LEAF_DAYS = 1825


@dataclass(frozen=True)
class Authority:
    """What signs certificates."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def new_authority() -> Authority:
    """Returns an authority with a key of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Authority(_certificate_of_authority(key), key)


def load_authority(folder: Path) -> Authority:
    """Returns the authority of a credentials folder; raises InputError if it can't be read, RefusedError if it has
    expired.
    """
    authority = _read_authority(folder)
    end = authority.certificate.not_valid_after_utc
    if end <= datetime.datetime.now(datetime.timezone.utc):
        raise RefusedError(
            f"The authority {folder}/ca.pem was valid until {end:%Y-%m-%d}, so nobody accepts what it issues; make a "
            "new one with `edgewright keys create` in another folder, and give it to every board."
        )
    return authority


def _read_authority(folder: Path) -> Authority:
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except OSError as error:
        message = (
            f"{error.filename} can't be read ({error.strerror}); use the folder of `edgewright keys create`."
        )
        raise InputError(message) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(f"ca.pem or ca.key of {folder} holds no unencrypted PEM; copy both again.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise InputError(f"{folder}/ca.key is not the key of ca.pem; copy both of one folder.")
    return Authority(certificate, key)


def agent_pair(authority: Authority, name: str, hosts: Sequence[str]) -> dict[str, bytes]:
    """`name`.pem and `name`.key for a board that is reached at these hosts; raises InputError for a malformed one."""
    names = [_host_name(host) for host in dict.fromkeys(["localhost", "127.0.0.1", *hosts])]
    return _pair(authority, name, "agent", names, ExtendedKeyUsageOID.SERVER_AUTH)


def client_pair(authority: Authority, role: str) -> dict[str, bytes]:
    """`role`.pem and `role`.key for a host that may do what this role may."""
    uri = x509.UniformResourceIdentifier(f"edgewright:role:{role}")
    return _pair(authority, role, role, [uri], ExtendedKeyUsageOID.CLIENT_AUTH)


def _certificate_of_authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _common_name("Edgewright authority")
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        _builder(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def _pair(
    authority: Authority,
    name: str,
    role: str,
    subject_names: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
) -> dict[str, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        _builder(
            _common_name(f"edgewright {role}"), authority.certificate.subject, key.public_key(), LEAF_DAYS
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(subject_names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(authority_id, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return {f"{name}.key": private_pem(key), f"{name}.pem": certificate.public_bytes(Encoding.PEM)}


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # a board's clock may be behind
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if (
            not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}", host)
            or max(map(len, host.split("."))) > LABEL_MAX
        ):
            message = f"{host[:100]!r} is neither an IP address nor a host name; give it without a port."
            raise InputError(message) from None
        return x509.DNSName(host)

"""The credentials folder: a release key, a certificate authority of one's own, and certificates with roles.

ca.pem ca.key            signs the certificates below; keep ca.key off the boards
agent.pem agent.key      the board's: serves localhost, 127.0.0.1 and the hosts named
deployer.pem deployer.key, observer.pem observer.key     the host's, with the role as a URI name
release.key release.pub  Ed25519, signs artifacts; boards trust release.pub
root.key root.pub        Ed25519, signs trust documents; best kept offline
trust-1.json …           who may sign artifacts and what is revoked, see `trust_chain`
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgewright_agent.errors import InputError, OutsideError, RefusedError
from edgewright_builder import trust_chain
from edgewright_builder.key_files import private_pem, public_pem, write_private

ROLES = ("deployer", "observer")
CA_DAYS = 3650
# Years, because a board whose certificate has expired can't be reached to renew it.
LEAF_DAYS = 1825


def create_credentials(folder: Path, hosts: Sequence[str] = (), *, force: bool = False) -> list[Path]:
    """Writes the folder described above, each file with mode 0600, and returns the files.

    Raises RefusedError if one of them exists and `force` is not set, InputError for a malformed host name.
    """
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _authority(ca_key)
    contents = {"ca.key": private_pem(ca_key), "ca.pem": ca.public_bytes(Encoding.PEM)}
    names = [_host_name(host) for host in dict.fromkeys(["localhost", "127.0.0.1", *hosts])]
    contents |= _leaf("agent", names, ExtendedKeyUsageOID.SERVER_AUTH, ca, ca_key)
    for role in ROLES:
        uri = x509.UniformResourceIdentifier(f"edgewright:role:{role}")
        contents |= _leaf(role, [uri], ExtendedKeyUsageOID.CLIENT_AUTH, ca, ca_key)
    release_key, root_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    for name, pair in (("release", release_key), ("root", root_key)):
        contents |= {f"{name}.key": private_pem(pair), f"{name}.pub": public_pem(pair)}
    contents["trust-1.json"] = trust_chain.first_document(root_key, release_key)
    written = _write_all(folder, contents, force=force)
    for path in folder.glob("trust-*.json"):
        if path not in written:
            path.unlink()  # of the root key that was just replaced
    return written


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
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


def _leaf(
    name: str,
    subject_names: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
) -> dict[str, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        _builder(_common_name(f"edgewright {name}"), ca.subject, key.public_key(), LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(subject_names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(authority_id, critical=False)
        .sign(ca_key, hashes.SHA256())
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
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}", host):
            message = f"{host!r} is neither an IP address nor a host name; give it without a port."
            raise InputError(message) from None
        return x509.DNSName(host)


def _write_all(folder: Path, contents: dict[str, bytes], *, force: bool) -> list[Path]:
    paths = [folder / name for name in sorted(contents)]
    existing = [path.name for path in paths if path.exists()]
    if existing and not force:
        others = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        message = (
            f"{folder} already holds {existing[-1]}{others}, which boards may trust; --force replaces them."
        )
        raise RefusedError(message)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in paths:
            write_private(path, contents[path.name])
    except OSError as error:
        raise OutsideError(f"{folder} can't be written ({error.strerror}).") from error
    return paths

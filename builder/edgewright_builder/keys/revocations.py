"""What `edgewright keys revoke WHAT` means: a key, a certificate or a release, by its file or its id."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import ValidationError

from edgewright.dsse import key_id
from edgewright.errors import InputError
from edgewright.manifest import manifest_digest
from edgewright.trust.document import REASON_CHARACTERS_MAX, Revocation
from edgewright.trust.keys import load_public_key
from edgewright_builder.keys import key_files, trust_issuer


def revocation_of(folder: Path, what: str, *, stop: bool = False, reason: str = "") -> Revocation:
    """Returns what the user means: a public key, a certificate, an artifact's folder, or an id of one in hex.

    Raises InputError if it is none of them.
    """
    kind, sha256 = _identify(folder, what)
    if kind == "key":
        _require_no_root_key(folder, what, sha256)
    if stop and kind == "certificate":
        raise InputError("--stop is for releases and release keys; a certificate serves nothing.")
    try:
        return Revocation.model_validate({"kind": kind, "sha256": sha256, "stop": stop, "reason": reason})
    except ValidationError:
        raise InputError(
            f"The reason has {len(reason)} characters; give at most {REASON_CHARACTERS_MAX}, all of them Unicode."
        ) from None


def _require_no_root_key(folder: Path, what: str, keyid: str) -> None:
    """Raises InputError for a key that signs trust documents alone: revocations are about artifacts' signatures."""
    document = trust_issuer.newest(folder)
    if keyid in map(key_id, document.root.public_keys()) and keyid not in map(
        key_id, document.release.public_keys()
    ):
        raise InputError(
            f"{what} is a root key, which signs no artifact: revoking it would change nothing. Replace it by "
            f"`edgewright keys rotate {folder} --root`."
        )


def _identify(folder: Path, what: str) -> tuple[str, str]:
    path = Path(what)
    if (path / "manifest.json").is_file():
        return "release", manifest_digest((path / "manifest.json").read_bytes())
    if path.is_file() and path.suffix == ".pem":
        return "certificate", _certificate_sha256(path)
    if path.is_file() and path.suffix == ".key":
        return "key", key_id(key_files.load_signing_key(path).public_key())
    if path.is_file():
        return "key", key_id(load_public_key(path))
    if re.fullmatch(r"[0-9a-f]{8,64}", what := what.lower()):
        document = trust_issuer.newest(folder)
        ids = {*map(key_id, document.release.public_keys()), *document.revocations("key")}
        known = [each for each in ids if each.startswith(what)]
        if len(known) == 1:
            return "key", known[0]
        if len(what) == 64:
            return "release", what
    message = (
        f"{what!r} is nothing that can be revoked: give a public key (*.pub), a client's certificate (*.pem), "
        "an artifact's folder, the id of a release key, or a release's whole digest."
    )
    raise InputError(message)


def _is_for_clients(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage


def _certificate_sha256(path: Path) -> str:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        raise InputError(f"{path} holds no PEM certificate.") from None
    if not _is_for_clients(certificate):
        raise InputError(
            f"{path} is no client's certificate, and boards look at those alone: revoking it would change nothing. "
            "Give a deployer's or an observer's; `edgewright keys certificate DIR --host NAME` replaces a board's own."
        )
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()

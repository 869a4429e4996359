"""Signed trust documents for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgewright.dsse import encode_envelope, key_id, pae
from edgewright.trust.document import TRUST_PAYLOAD_TYPE, SignerSet, TrustDocument
from tests.support.artifacts import RELEASE_KEY

ROOT, NEW_ROOT, NEW_RELEASE = (Ed25519PrivateKey.generate() for _ in range(3))
ISSUED = datetime(2026, 11, 1, tzinfo=timezone.utc)


def signers(*keys: Ed25519PrivateKey, threshold: int = 1) -> SignerSet:
    return SignerSet.of(tuple(key.public_key() for key in keys), threshold)


def document(version: int = 1, **fields: Any) -> TrustDocument:
    defaults: dict[str, Any] = {"issued": ISSUED, "root": signers(ROOT), "release": signers(RELEASE_KEY)}
    return TrustDocument.model_validate({"version": version, **defaults, **fields})


def sign(value: TrustDocument, keys: Sequence[Ed25519PrivateKey] = (ROOT,)) -> bytes:
    payload = value.to_bytes()
    message = pae(TRUST_PAYLOAD_TYPE, payload)
    signatures = {key_id(key.public_key()): key.sign(message) for key in keys}
    return encode_envelope(payload, signatures, TRUST_PAYLOAD_TYPE)


def signed(version: int, keys: Sequence[Ed25519PrivateKey] = (ROOT,), **fields: Any) -> bytes:
    return sign(document(version, **fields), keys)


def revocation(
    key: Ed25519PrivateKey = RELEASE_KEY, *, stop: bool = False, reason: str = ""
) -> dict[str, Any]:
    return {"kind": "key", "sha256": key_id(key.public_key()), "stop": stop, "reason": reason}

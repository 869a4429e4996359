"""DSSE envelopes over a manifest: what is signed, and whether one is signed by a key we trust.

Dead Simple Signing Envelope v1: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md.
Keys are Ed25519; a key's id is the SHA-256 of its 32 raw bytes. An envelope has exactly one encoding, so
that no byte of `manifest.sig` can change unnoticed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgewright.v1.common_pb2 import Reason
from edgewright_agent.errors import InputError, RefusedError
from edgewright_agent.manifest import MANIFEST_BYTES_MAX

PAYLOAD_TYPE = "application/vnd.edgewright.manifest+json"
SIGNATURES_MAX = 16
# Base64 takes 4/3 of the manifest; the rest is signatures and braces.
ENVELOPE_BYTES_MAX = MANIFEST_BYTES_MAX * 4 // 3 + 64 * 1024


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 of the raw public key, in hex."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def encode_envelope(payload: bytes, signatures: Mapping[str, bytes]) -> bytes:
    """The envelope's one encoding; `signatures` maps key id to signature."""
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {"keyid": keyid, "sig": base64.b64encode(signature).decode()}
            for keyid, signature in sorted(signatures.items())
        ],
    }
    return (json.dumps(envelope, indent=2, sort_keys=True) + "\n").encode()


def verify_envelope(
    manifest: bytes, envelope: bytes, trusted_keys: Iterable[Ed25519PublicKey]
) -> Ed25519PublicKey:
    """The trusted key that signed `manifest`.

    Raises InputError (`SIGNATURE_INVALID`) if the envelope is malformed, is over other bytes, or a trusted
    key's signature is wrong; RefusedError (`KEY_UNTRUSTED`) if nobody we trust has signed.
    """
    signatures = _signatures_over(manifest, envelope)
    trusted = {key_id(key): key for key in trusted_keys}
    signers = [trusted[keyid] for keyid in signatures if keyid in trusted]
    if not signers:
        found = ", ".join(keyid[:12] for keyid in signatures)
        expected = ", ".join(keyid[:12] for keyid in trusted) or "none"
        message = (
            f"The manifest is signed by key {found}; trusted here: {expected}. Sign it with one of those."
        )
        raise RefusedError(message, Reason.REASON_KEY_UNTRUSTED)
    for key in signers:
        try:
            key.verify(signatures[key_id(key)], pae(PAYLOAD_TYPE, manifest))
        except InvalidSignature:
            raise _invalid(f"the signature of key {key_id(key)[:12]} is not of this manifest") from None
    return signers[0]


def _signatures_over(manifest: bytes, envelope: bytes) -> dict[str, bytes]:
    if len(envelope) > ENVELOPE_BYTES_MAX:
        raise _invalid(f"it has {len(envelope)} bytes, at most {ENVELOPE_BYTES_MAX} are accepted")
    try:
        document: Any = json.loads(envelope)
        rows = document["signatures"]
        signatures = {str(row["keyid"]): base64.b64decode(row["sig"], validate=True) for row in rows}
        payload = base64.b64decode(document["payload"], validate=True)
        canonical = encode_envelope(payload, signatures)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error):
        raise _invalid("it is no DSSE envelope") from None
    if payload != manifest:
        raise _invalid("it is over another manifest")
    if canonical != envelope or not 1 <= len(signatures) <= SIGNATURES_MAX:
        raise _invalid(f"it is not in the one accepted encoding with 1 to {SIGNATURES_MAX} signatures")
    return signatures


def _invalid(why: str) -> InputError:
    message = f"The signature in manifest.sig is invalid: {why}. Sign the artifact again."
    return InputError(message, Reason.REASON_SIGNATURE_INVALID)

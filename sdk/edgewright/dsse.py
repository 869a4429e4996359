"""DSSE envelopes: what is signed, and by whom of those we ask about.

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
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgewright.errors import InputError, RefusedError
from edgewright.manifest import MANIFEST_BYTES_MAX
from edgewright.v1.common_pb2 import Reason

PAYLOAD_TYPE = "application/vnd.edgewright.manifest+json"
SIGNATURES_MAX = 16
# Base64 takes 4/3 of the manifest; the rest is signatures and braces.
ENVELOPE_BYTES_MAX = MANIFEST_BYTES_MAX * 4 // 3 + 64 * 1024


@dataclass(frozen=True)
class Envelope:
    """A payload and who says to have signed it. Nothing is verified yet: ask `signers`."""

    payload: bytes
    signatures: Mapping[str, bytes]  # by key id
    payload_type: str

    def signers(self, keys: Iterable[Ed25519PublicKey]) -> tuple[Ed25519PublicKey, ...]:
        """Returns those of `keys` that signed. Raises InputError (`SIGNATURE_INVALID`) if one's signature is wrong."""
        found = []
        for key in keys:
            signature = self.signatures.get(key_id(key))
            if signature is None:
                continue
            try:
                key.verify(signature, pae(self.payload_type, self.payload))
            except InvalidSignature:
                raise _invalid(f"the signature of key {key_id(key)[:12]} is not of these bytes") from None
            found.append(key)
        return tuple(found)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Returns DSSE's pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def key_id(key: Ed25519PublicKey) -> str:
    """Returns the SHA-256 of the raw public key, in hex."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def encode_envelope(
    payload: bytes, signatures: Mapping[str, bytes], payload_type: str = PAYLOAD_TYPE
) -> bytes:
    """Returns the envelope's one encoding; `signatures` maps key id to signature."""
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [
            {"keyid": keyid, "sig": base64.b64encode(signature).decode()}
            for keyid, signature in sorted(signatures.items())
        ],
    }
    return (json.dumps(envelope, indent=2, sort_keys=True) + "\n").encode()


def decode_envelope(
    data: bytes, payload_type: str = PAYLOAD_TYPE, bytes_max: int = ENVELOPE_BYTES_MAX
) -> Envelope:
    """Returns the envelope in `data`; raises InputError (`SIGNATURE_INVALID`) unless it is one in its one encoding."""
    if len(data) > bytes_max:
        raise _invalid(f"it has {len(data)} bytes, at most {bytes_max} are accepted")
    try:
        document: Any = json.loads(data)
        rows = document["signatures"]
        signatures = {str(row["keyid"]): base64.b64decode(row["sig"], validate=True) for row in rows}
        payload = base64.b64decode(document["payload"], validate=True)
        canonical = encode_envelope(payload, signatures, payload_type)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error):
        raise _invalid("it is no DSSE envelope") from None
    if canonical != data or not 1 <= len(signatures) <= SIGNATURES_MAX:
        raise _invalid(f"it is not in the one accepted encoding with 1 to {SIGNATURES_MAX} signatures")
    return Envelope(payload, signatures, payload_type)


def envelope_over(manifest: bytes, data: bytes) -> Envelope:
    """Returns the envelope in `data`; raises InputError (`SIGNATURE_INVALID`) unless it is over this manifest."""
    envelope = decode_envelope(data)
    if envelope.payload != manifest:
        raise _invalid("it is over another manifest")
    return envelope


def verify_envelope(
    manifest: bytes, envelope: bytes, trusted_keys: Iterable[Ed25519PublicKey], threshold: int = 1
) -> Ed25519PublicKey:
    """Returns the first trusted key that signed `manifest`.

    Raises InputError (`SIGNATURE_INVALID`) if the envelope is malformed, is over other bytes, or a trusted
    key's signature is wrong; RefusedError (`KEY_UNTRUSTED`) if fewer than `threshold` we trust have signed.
    """
    opened, trusted = envelope_over(manifest, envelope), list(trusted_keys)
    signers = opened.signers(trusted)
    if len(signers) < max(1, threshold):
        found = ", ".join(keyid[:12] for keyid in opened.signatures)
        expected = ", ".join(key_id(key)[:12] for key in trusted) or "none"
        many = f", {threshold} of which must sign" if threshold > 1 else ""
        message = f"The manifest is signed by key {found}; trusted here: {expected}{many}. Sign it with one of those."
        raise RefusedError(message, Reason.REASON_KEY_UNTRUSTED)
    return signers[0]


def _invalid(why: str) -> InputError:
    message = f"The signature envelope is invalid: {why}. Sign the document again."
    return InputError(message, Reason.REASON_SIGNATURE_INVALID)

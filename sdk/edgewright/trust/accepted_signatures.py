"""Whose signatures count, by a trust document: over releases, over the next document, and what revocations undo.

No I/O, no clock. What a revocation does, in short: a revoked key's signatures count for nothing, so its releases are
neither staged nor activated nor rolled back to by hand. What already serves goes on serving, and the automatic way back
from a failed candidate stays open: a board that answers with an old model beats one that does not answer. A revocation
with `stop` is for models that must not answer at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from edgewright.dsse import Envelope, decode_envelope, envelope_over, key_id, verify_envelope
from edgewright.errors import EdgewrightError, RefusedError
from edgewright.manifest import manifest_digest
from edgewright.trust.document import (
    TRUST_BYTES_MAX,
    TRUST_PAYLOAD_TYPE,
    Revocation,
    SignerSet,
    TrustDocument,
    parse_trust,
)
from edgewright.v1.common_pb2 import Reason

ENVELOPE_BYTES_MAX = TRUST_BYTES_MAX * 4 // 3 + 64 * 1024


@dataclass(frozen=True)
class RevocationVerdict:
    """A release that was signed well once and no longer counts."""

    digest: str
    stop: bool
    reason: str


def read_signed(data: bytes) -> TrustDocument:
    """Returns the document in an envelope that enough of its own root keys signed.

    Raises InputError (`SIGNATURE_INVALID`, `TRUST_INVALID`), RefusedError (`KEY_UNTRUSTED`).
    """
    envelope = decode_envelope(data, TRUST_PAYLOAD_TYPE, ENVELOPE_BYTES_MAX)
    document = parse_trust(envelope.payload)
    _require(envelope, document.root, f"its own root keys (version {document.version})")
    return document


def successor(current: TrustDocument, data: bytes) -> TrustDocument:
    """Returns the document in `data`, if it may follow `current`.

    Old and new root keys must both have signed it, and its version must be higher. Raises as `read_signed`,
    and RefusedError (`TRUST_STALE`).
    """
    document = read_signed(data)
    envelope = decode_envelope(data, TRUST_PAYLOAD_TYPE, ENVELOPE_BYTES_MAX)
    if document.version <= current.version:
        message = (
            f"Trust document {document.version} is not newer than {current.version}, which is in force here; "
            "trust never goes back."
        )
        raise RefusedError(message, Reason.REASON_TRUST_STALE)
    _require(envelope, current.root, f"the root keys in force (version {current.version})")
    return document


def follow(current: TrustDocument, documents: Iterable[bytes]) -> tuple[TrustDocument, bytes]:
    """Returns the last of a chain of documents, oldest first, and its envelope; those not newer are passed over.

    Raises as `successor`; `TRUST_STALE` if none is newer.
    """
    last: bytes | None = None
    stale: RefusedError | None = None
    for data in documents:
        try:
            current, last = successor(current, data), data
        except RefusedError as error:
            if error.reason != Reason.REASON_TRUST_STALE:
                raise
            stale = error
    if last is None:
        raise stale or RefusedError("No trust document came; send at least one.", Reason.REASON_TRUST_STALE)
    return current, last


def check_release(document: TrustDocument, manifest: bytes, envelope: bytes) -> None:
    """Raises unless this manifest may be staged and activated.

    Raises InputError (`SIGNATURE_INVALID`), RefusedError (`REVOKED`, `KEY_UNTRUSTED`).
    """
    digest = manifest_digest(manifest)
    revoked = revocation_of(document, digest, manifest, envelope)
    if revoked is not None:
        message = f"Release {digest[:12]} can't be used: {revoked.reason}. Push one that is still trusted."
        raise RefusedError(message, Reason.REASON_REVOKED)
    verify_envelope(manifest, envelope, document.release_keys(), document.release.threshold)


def check_fresh(document: TrustDocument, now: datetime) -> None:
    """Raises RefusedError (`TRUST_EXPIRED`) if the document's time is over."""
    if document.expires is not None and now >= document.expires:
        message = (
            f"Trust document {document.version} expired on {document.expires:%Y-%m-%d %H:%M} UTC and it is "
            f"{now:%Y-%m-%d %H:%M} UTC here. Renew it with `edgewright keys trust`, or set the board's clock."
        )
        raise RefusedError(message, Reason.REASON_TRUST_EXPIRED)


def revocation_of(
    document: TrustDocument, digest: str, manifest: bytes, envelope: bytes
) -> RevocationVerdict | None:
    """Returns why a release no longer counts; None if it was not revoked. Raises InputError (`SIGNATURE_INVALID`).

    A release is revoked with its keys only if too few signatures of good keys are left.
    """
    by_digest = document.revocations("release").get(digest)
    if by_digest is not None:
        return RevocationVerdict(
            digest, by_digest.stop, _because(f"release {digest[:12]} was revoked", by_digest)
        )
    opened = envelope_over(manifest, envelope)
    revoked = document.revocations("key")
    lost = [revoked[keyid] for keyid in opened.signatures if keyid in revoked]
    good = opened.signers(document.release_keys())
    if not lost or len(good) >= document.release.threshold:
        return None
    reason = _because(f"its key {lost[0].sha256[:12]} was revoked", lost[0])
    return RevocationVerdict(digest, any(each.stop for each in lost), reason)


def check_certificate(document: TrustDocument, sha256: str) -> None:
    """Raises RefusedError (`REVOKED`) if this client certificate was revoked."""
    found = document.revocations("certificate").get(sha256)
    if found is not None:
        what = _because(f"The certificate {sha256[:12]} was revoked", found)
        raise RefusedError(f"{what}. Ask for a new one.", Reason.REASON_REVOKED)


def _require(envelope: Envelope, signers: SignerSet, whose: str) -> None:
    try:
        signed = len(envelope.signers(signers.public_keys()))
    except EdgewrightError as error:
        raise type(error)(f"The trust document is not what {whose} signed: {error}", error.reason) from None
    if signed < signers.threshold:
        known = ", ".join(key_id(key)[:12] for key in signers.public_keys())
        message = (
            f"The trust document is signed by {signed} of {whose}: {known}; {signers.threshold} must sign. "
            "Sign it with those."
        )
        raise RefusedError(message, Reason.REASON_KEY_UNTRUSTED)


def _because(what: str, revocation: Revocation) -> str:
    return f"{what} ({revocation.reason})" if revocation.reason else what

"""The trust document: who may sign, how many of them it takes, and what is revoked.

It travels in a DSSE envelope of its own payload type. Root keys sign trust documents, release keys sign
artifacts; the names and the chain of versions follow The Update Framework's root role
(https://theupdateframework.github.io/specification/latest/#update-root).
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgewright.dsse import SIGNATURES_MAX, key_id
from edgewright.errors import InputError
from edgewright.manifest import Sha256
from edgewright.v1.common_pb2 import Reason

TRUST_PAYLOAD_TYPE = "application/vnd.edgewright.trust+json"
TRUST_BYTES_MAX = 256 * 1024
REVOCATIONS_MAX = 1000
REASON_CHARACTERS_MAX = 200

RevokedKind = Literal["key", "release", "certificate"]
PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # 32 raw bytes of Ed25519, hex


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SignerSet(_Frozen):
    """A set of keys, any `threshold` of which decide."""

    threshold: Annotated[int, Field(ge=1, le=SIGNATURES_MAX)] = 1
    keys: Annotated[tuple[PublicKey, ...], Field(min_length=1, max_length=SIGNATURES_MAX)]

    @model_validator(mode="after")
    def _can_be_reached(self) -> SignerSet:
        if len(set(self.keys)) != len(self.keys):
            raise ValueError("a key is listed twice")
        if self.threshold > len(self.keys):
            raise ValueError(f"{self.threshold} of {len(self.keys)} keys can never sign")
        return self

    def public_keys(self) -> tuple[Ed25519PublicKey, ...]:
        """Returns the keys, to verify with."""
        return tuple(Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)) for key in self.keys)

    @classmethod
    def of(cls, keys: tuple[Ed25519PublicKey, ...], threshold: int = 1) -> SignerSet:
        """Returns the set of these keys."""
        return cls(
            threshold=threshold, keys=tuple(dict.fromkeys(key.public_bytes_raw().hex() for key in keys))
        )


class Revocation(_Frozen):
    """What no longer counts: a release key, a release, or a client's certificate."""

    kind: RevokedKind
    sha256: Sha256  # of the raw public key, of the manifest, or of the certificate in DER
    stop: bool = False  # releases: stop serving them too, not only refuse them
    reason: Annotated[str, Field(max_length=REASON_CHARACTERS_MAX)] = ""


class TrustDocument(_Frozen):
    """The whole of a trust document. `issued` and `expires` are UTC, to the second."""

    schema_version: Literal["edgewright.trust.v1"] = "edgewright.trust.v1"
    version: Annotated[int, Field(ge=0, lt=2**53)]  # 0: made from the keys of `--trust`, never signed
    issued: AwareDatetime
    expires: AwareDatetime | None = None
    root: SignerSet
    release: SignerSet
    revoked: Annotated[tuple[Revocation, ...], Field(max_length=REVOCATIONS_MAX)] = ()

    @model_validator(mode="after")
    def _leaves_somebody_to_sign(self) -> TrustDocument:
        good = len(self.release_keys())
        if good < self.release.threshold:
            raise ValueError(
                f"{good} release keys would be left, and {self.release.threshold} must sign; add a key first"
            )
        if self.expires is not None and self.expires <= self.issued:
            raise ValueError("it expires before it is issued")
        return self

    def release_keys(self) -> tuple[Ed25519PublicKey, ...]:
        """Returns the release keys that are not revoked."""
        revoked = self.revocations("key")
        return tuple(key for key in self.release.public_keys() if key_id(key) not in revoked)

    def revocations(self, kind: RevokedKind) -> dict[str, Revocation]:
        """Returns the revocations of one kind, by SHA-256 in hex."""
        return {each.sha256: each for each in self.revoked if each.kind == kind}

    def to_bytes(self) -> bytes:
        """Returns the bytes that are signed: sorted keys, one newline at the end."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
        return (text + "\n").encode()


def parse_trust(data: bytes) -> TrustDocument:
    """Returns the document in `data`; raises InputError (`TRUST_INVALID`) that names the first wrong field."""
    if len(data) > TRUST_BYTES_MAX:
        message = f"The trust document has {len(data)} bytes; at most {TRUST_BYTES_MAX} are accepted."
        raise InputError(message, Reason.REASON_TRUST_INVALID)
    try:
        return TrustDocument.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        message = f"The trust document is invalid at {where}: {first['msg']}."
        raise InputError(message, Reason.REASON_TRUST_INVALID) from None


def pinned(keys: tuple[Ed25519PublicKey, ...]) -> TrustDocument:
    """Returns the document that bare public keys stand for: each of them is root and release key."""
    signers = SignerSet.of(keys)
    return TrustDocument(
        version=0, issued=datetime.fromtimestamp(0, timezone.utc), root=signers, release=signers
    )

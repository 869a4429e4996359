"""The chain of trust that a board has followed: every key of what `--trust` gave and of all documents since.

A release that was accepted under an earlier document of the chain is served after its key was dropped (decision
0031). One that was accepted under another chain is not (decision 0048). The newest document alone can't tell the two
apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgewright.trust.document import TrustDocument


@dataclass(frozen=True)
class TrustChain:
    """All root and release keys so far, each 32 raw bytes in hex."""

    root_keys: frozenset[str] = frozenset()
    release_keys: frozenset[str] = frozenset()

    def holds(self, document: TrustDocument) -> bool:
        """Whether the document belongs to this chain: one of its root keys was a root key before."""
        return not self.root_keys.isdisjoint(document.root.keys)

    def extended(self, document: TrustDocument) -> TrustChain:
        """Returns the chain with this document."""
        return TrustChain(
            self.root_keys | set(document.root.keys), self.release_keys | set(document.release.keys)
        )

    def public_keys(self) -> tuple[Ed25519PublicKey, ...]:
        """Returns the release keys, to verify with."""
        return tuple(
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)) for key in sorted(self.release_keys)
        )

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {"root_keys": sorted(self.root_keys), "release_keys": sorted(self.release_keys)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TrustChain:
        """Returns the inverse of `to_json`."""
        return cls(frozenset(value["root_keys"]), frozenset(value["release_keys"]))

"""Whose releases this board runs: root and release keys, and what was revoked.

`document` is what is signed, `rules` are the pure judgements over it, `held` is the board's own copy on
disk, `clock` the time it is judged by, `keys` reads the files given with `--trust`.
"""

from edgewright_agent.trust.document import (
    TRUST_PAYLOAD_TYPE,
    Revocation,
    RevokedKind,
    SignerSet,
    TrustDocument,
    parse_trust,
    pinned,
)
from edgewright_agent.trust.held import Trust
from edgewright_agent.trust.keys import load_public_key, load_trust, load_trusted_keys

__all__ = [
    "TRUST_PAYLOAD_TYPE",
    "Revocation",
    "RevokedKind",
    "SignerSet",
    "Trust",
    "TrustDocument",
    "load_public_key",
    "load_trust",
    "load_trusted_keys",
    "parse_trust",
    "pinned",
]

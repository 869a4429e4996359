"""What a proof found, and the proofs of the built-in models that ship with Edgewright."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from edgewright_builder.fit.proof.tiny_config import tiny_config

# Of the spread of the logits. Float32 leaves some 1e-5; a feature that is dropped leaves 1e-3 and more.
TOLERANCE = 2e-4
SHIPPED_FILE = "shipped.json"


@dataclass(frozen=True)
class Proof:
    """Logits of one tiny model in the engine that serves, against those of transformers."""

    config: Mapping[str, Any]  # of the tiny model
    max_logit_difference: float
    logit_deviation: float  # the standard deviation of transformers' logits
    argmax_agreement: float  # share of the positions past window and limits where both choose the same token
    tokens: int  # positions compared
    seconds: float
    versions: Mapping[str, str]  # of exporter, runtime and transformers

    @property
    def equal(self) -> bool:
        """Whether the engine computes what transformers computes."""
        near = self.max_logit_difference <= TOLERANCE * self.logit_deviation
        return near and self.argmax_agreement == 1.0

    def __str__(self) -> str:
        return (
            f"logits differ by at most {self.max_logit_difference:.1e} (they spread by {self.logit_deviation:.2g}), "
            f"{self.argmax_agreement:.1%} of the tokens past its limits are the same"
        )


def fingerprint(config: Mapping[str, Any]) -> str:
    """Returns what identifies how `config` computes: the digest of its tiny configuration."""
    return digest_of_tiny(tiny_config(config))


def digest_of_tiny(tiny: Mapping[str, Any]) -> str:
    """Returns the digest of a tiny configuration."""
    return hashlib.sha256(json.dumps(tiny, sort_keys=True).encode()).hexdigest()


def shipped_proof(config: Mapping[str, Any]) -> Proof | None:
    """Returns the proof that ships for models that compute as `config`; None where there is none."""
    return _shipped().get(fingerprint(config))


@lru_cache(maxsize=1)
def _shipped() -> Mapping[str, Proof]:
    document = json.loads((resources.files(__package__) / SHIPPED_FILE).read_text(encoding="utf-8"))
    proofs = [Proof(**row, versions=document["versions"]) for row in document["proofs"]]
    return {digest_of_tiny(proof.config): proof for proof in proofs if proof.equal}

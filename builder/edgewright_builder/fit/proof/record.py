"""What a proof found, and the proofs of the built-in models that ship with Edgewright."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from edgewright.errors import InputError
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.engines.traits import ProofTraits
from edgewright_builder.fit.proof.tiny_config import tiny_config


@dataclass(frozen=True)
class Proof:
    """Logits of one tiny model in the engine that serves, against those of transformers."""

    engine: str
    config: Mapping[str, Any]  # of the tiny model
    max_logit_difference: float
    logit_deviation: float  # the standard deviation of transformers' logits
    argmax_agreement: float  # share of the positions past window and limits where both choose the same token
    tokens: int  # positions compared
    seconds: float
    versions: Mapping[str, str]  # of exporter, engine and transformers

    @property
    def equal(self) -> bool:
        """Whether the engine computes what transformers computes."""
        near = self.max_logit_difference <= proof_traits(self.engine).tolerance * self.logit_deviation
        return near and self.argmax_agreement == 1.0

    def __str__(self) -> str:
        return (
            f"logits differ by at most {self.max_logit_difference:.1e} (they spread by {self.logit_deviation:.2g}), "
            f"{self.argmax_agreement:.1%} of the tokens past its limits are the same"
        )


def proof_traits(engine: str) -> ProofTraits:
    """Returns how an engine is held against transformers. Raises InputError for one of which nothing is exported."""
    proof = engine_traits(engine).proof
    if proof is None:
        raise InputError(f"--prove tries what is exported; {engine} computes from the checkpoint itself.")
    return proof


def tiny_for(config: Mapping[str, Any], engine: str) -> dict[str, Any]:
    """Returns the tiny configuration of what the engine computes of `config`."""
    return tiny_config(proof_traits(engine).as_served(config))


def fingerprint(config: Mapping[str, Any], engine: str) -> str:
    """Returns what identifies how the engine computes `config`: the digest of its tiny configuration."""
    return digest_of_tiny(tiny_for(config, engine))


def digest_of_tiny(tiny: Mapping[str, Any]) -> str:
    """Returns the digest of a tiny configuration."""
    return hashlib.sha256(json.dumps(tiny, sort_keys=True).encode()).hexdigest()


def shipped_proof(config: Mapping[str, Any], engine: str) -> Proof | None:
    """Returns the engine's proof that ships for models that compute as `config`; None where there is none."""
    return _shipped(engine).get(fingerprint(config, engine))


@lru_cache(maxsize=2)
def _shipped(engine: str) -> Mapping[str, Proof]:
    document = json.loads((resources.files(__package__) / f"{engine}.json").read_text(encoding="utf-8"))
    proofs = [Proof(engine, **row, versions=document["versions"]) for row in document["proofs"]]
    return {digest_of_tiny(proof.config): proof for proof in proofs if proof.equal}

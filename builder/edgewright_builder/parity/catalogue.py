"""The proofs of all built-in models, as they ship."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgewright_builder.fit.catalogue import builtin_models
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.model_facts import from_builtin
from edgewright_builder.fit.proof.record import Proof, digest_of_tiny, tiny_for
from edgewright_builder.parity.prove import prove
from edgewright_builder.parity.provers import PROVERS


@dataclass(frozen=True)
class CatalogueProof:
    """One tiny configuration, and the built-in models that compute like it."""

    models: tuple[str, ...]
    outcome: Proof | str  # why it could not be tried

    @property
    def equal(self) -> bool:
        """Whether the engine computes what transformers computes."""
        return isinstance(self.outcome, Proof) and self.outcome.equal


def prove_catalogue(engine: str) -> list[CatalogueProof]:
    """Returns the proof of every built-in model that the engine can serve."""
    tiny_configs: dict[str, dict[str, Any]] = {}
    models: dict[str, list[str]] = {}
    for model in builtin_models():
        layers = from_builtin(model).architecture.layers
        if engine_traits(engine).why_not(model.config, layers) is None:
            tiny = tiny_for(model.config, engine)
            tiny_configs[digest_of_tiny(tiny)] = tiny
            models.setdefault(digest_of_tiny(tiny), []).append(model.name)
    outcomes = prove(engine, list(tiny_configs.values()))
    return [
        CatalogueProof(tuple(models[digest]), outcome)
        for digest, outcome in zip(tiny_configs, outcomes, strict=True)
    ]


def catalogue_document(engine: str, rows: list[CatalogueProof]) -> dict[str, Any]:
    """Returns what `fit/proof/ENGINE.json` holds."""
    proofs = [asdict(row.outcome) for row in rows if isinstance(row.outcome, Proof)]
    for proof in proofs:
        del proof["versions"], proof["engine"]
    return {"versions": PROVERS[engine].versions(), "proofs": proofs}

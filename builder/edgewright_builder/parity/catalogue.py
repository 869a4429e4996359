"""The proofs of all built-in models, as they ship."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgewright_builder.fit.catalogue import builtin_models
from edgewright_builder.fit.engines import DEFAULT_ENGINE, engine_traits
from edgewright_builder.fit.proof.record import Proof, digest_of_tiny
from edgewright_builder.fit.proof.tiny_config import tiny_config
from edgewright_builder.parity.prove import distributions, prove


@dataclass(frozen=True)
class CatalogueProof:
    """One tiny configuration, and the built-in models that compute like it."""

    models: tuple[str, ...]
    outcome: Proof | str  # why it could not be tried

    @property
    def equal(self) -> bool:
        """Whether the engine computes what transformers computes."""
        return isinstance(self.outcome, Proof) and self.outcome.equal


def prove_catalogue() -> list[CatalogueProof]:
    """Returns the proof of every built-in model that the default engine's exporter knows."""
    tiny_configs: dict[str, dict[str, Any]] = {}
    models: dict[str, list[str]] = {}
    for model in builtin_models():
        if model.config["model_type"] in engine_traits(DEFAULT_ENGINE).model_types:
            tiny = tiny_config(model.config)
            tiny_configs[digest_of_tiny(tiny)] = tiny
            models.setdefault(digest_of_tiny(tiny), []).append(model.name)
    outcomes = prove(list(tiny_configs.values()))
    return [
        CatalogueProof(tuple(models[digest]), outcome)
        for digest, outcome in zip(tiny_configs, outcomes, strict=True)
    ]


def catalogue_document(rows: list[CatalogueProof]) -> dict[str, Any]:
    """Returns what `fit/proof/shipped.json` holds."""
    proofs = [asdict(row.outcome) for row in rows if isinstance(row.outcome, Proof)]
    for proof in proofs:
        del proof["versions"]
    return {"versions": distributions(), "proofs": proofs}

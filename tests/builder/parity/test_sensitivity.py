"""A proof fails where the exported graph leaves out, or changes, any one thing that transformers computes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgewright_builder.fit.proof.record import Proof
from edgewright_builder.fit.proof.tiny_config import tiny_config
from tests.support.configurations import (
    GEMMA_2,
    GEMMA_3,
    GRANITE,
    LINEAR,
    LLAMA,
    MISTRAL,
    PHI_3,
    SMOLLM_3,
    YARN,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # each exports two models

PLAIN = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
# By name: what transformers is given, and what the exporter is told instead.
DROPPED: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "a window": ({**MISTRAL, "sliding_window": 64}, {"sliding_window": None}),
    "one token of a window": ({**MISTRAL, "sliding_window": 64}, {"sliding_window": 47}),
    "linear scaling": ({**LLAMA, **LINEAR}, PLAIN),
    "yarn": ({**LLAMA, **YARN}, PLAIN),
    "yarn's attention factor": (
        {**LLAMA, **YARN},
        {"rope_parameters": {**YARN["rope_parameters"], "attention_factor": 1.0}},
    ),
    "layers without positions": (SMOLLM_3, {"no_rope_layers": [1, 1, 1, 1]}),
    "part of a head that is not turned": ({**PHI_3, "partial_rotary_factor": 0.75}, PLAIN),
    "the caps of scores": (GEMMA_2, {"attn_logit_softcapping": None}),
    "the caps of logits": (GEMMA_2, {"final_logit_softcapping": None}),
    "the scale of scores": (GEMMA_2, {"query_pre_attn_scalar": 32}),
    "the local frequencies": (
        GEMMA_3,
        {"rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e6}
                             for kind in ("full_attention", "sliding_attention")}},
    ),
    "a multiplier of residuals": (GRANITE, {"residual_multiplier": 0.2}),
    "the shape of an activation": ({**LLAMA, "hidden_act": "gelu"}, {"hidden_act": "gelu_new"}),
    "epsilon of the norms": (LLAMA, {"rms_norm_eps": 1e-2}),
}  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
def test_a_graph_without_it_is_not_equal(name: str, tmp_path: Path) -> None:
    config, change = DROPPED[name]
    told = tiny_config(config)
    honest, changed = compared(told, {}, tmp_path / "honest"), compared(told, change, tmp_path / "changed")
    assert honest.equal, honest
    assert not changed.equal, changed


def compared(tiny: Mapping[str, Any], change: Mapping[str, Any], folder: Path) -> Proof:
    """The checkpoint of `tiny`, exported with a configuration that is changed behind transformers' back."""
    from edgewright_builder.export.model_builder import Job, build
    from edgewright_builder.parity.checkpoint import make_checkpoint
    from edgewright_builder.parity.compare import agreement, logits_of

    folder.mkdir()
    checkpoint, engine = folder / "checkpoint", folder / "engine"
    model = make_checkpoint(tiny, checkpoint)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    (checkpoint / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    tied = str(tiny["tie_word_embeddings"]).lower()
    options = ("accuracy_level=1", f"shared_embeddings={tied}", "matmul_mixed_precision=last_matmul:int8")
    build(Job(str(checkpoint), str(engine), str(folder / "cache"), "int4", options))
    expected, served, positions = logits_of(model, engine, checkpoint)
    difference = float(abs(expected - served).max())
    share = agreement(expected, served, positions)
    return Proof(tiny, difference, float(expected.std()), share, len(positions), 0.0, {})

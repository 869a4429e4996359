"""A proof fails where the exported file leaves out, or changes, any one thing that transformers computes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgewright_builder.fit.proof.record import Proof, proof_traits, tiny_for
from tests.support.configurations import (
    GEMMA_2,
    GEMMA_3,
    GRANITE,
    LINEAR,
    LLAMA,
    MISTRAL,
    ORIGINAL,
    PHI_3,
    SMOLLM_3,
    YARN,
    factors,
    rope,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # each exports two models

ONNX_RUNTIME, LLAMA_CPP = "onnxruntime-genai", "llama.cpp"
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


# The same for llama.cpp's file, by the keys that its writer reads.
WRONG_IN_GGUF: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    **{
        name: DROPPED[name]
        for name in (
            "linear scaling", "yarn", "part of a head that is not turned", "a multiplier of residuals",
            "epsilon of the norms",
        )
    },
    "a window": ({**GEMMA_3, "query_pre_attn_scalar": 32}, {"sliding_window": None}),
    "one token of a window": ({**GEMMA_3, "query_pre_attn_scalar": 32}, {"sliding_window": 47}),
    "the local frequencies": ({**GEMMA_3, "query_pre_attn_scalar": 32}, DROPPED["the local frequencies"][1]),
    "which layers see a window": (
        {**GEMMA_3, "query_pre_attn_scalar": 32},
        {"layer_types": ["full_attention", "sliding_attention"] * 2},
    ),
    "the caps of scores": ({**GEMMA_2, "query_pre_attn_scalar": 32}, {"attn_logit_softcapping": 50.0}),
    "the caps of logits": ({**GEMMA_2, "query_pre_attn_scalar": 32}, {"final_logit_softcapping": 20.0}),
    "the base of the positions": (SMOLLM_3, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "llama 3's scaling": (
        {**LLAMA, **rope("llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                         original_max_position_embeddings=ORIGINAL)}, PLAIN,
    ),
    "longrope": (
        {**PHI_3, "original_max_position_embeddings": ORIGINAL,
         "rope_scaling": {"type": "longrope", **factors(16)}},
        PLAIN,
    ),
    "how embeddings are scaled": ({**GRANITE, "logits_scaling": 1.0}, {"embedding_multiplier": 1.0}),
}  # fmt: skip
CASES = [
    *((ONNX_RUNTIME, name, *DROPPED[name]) for name in DROPPED),
    *((LLAMA_CPP, name, *WRONG_IN_GGUF[name]) for name in WRONG_IN_GGUF),
]


@pytest.mark.parametrize(
    ("engine", "name", "config", "change"), CASES, ids=[f"{e}: {n}" for e, n, *_ in CASES]
)
def test_what_leaves_it_out_is_not_equal(
    engine: str, name: str, config: Mapping[str, Any], change: Mapping[str, Any], tmp_path: Path
) -> None:
    told = tiny_for(config, engine)
    honest = compared(engine, told, {}, tmp_path / "honest")
    changed = compared(engine, told, change, tmp_path / "changed")
    assert honest.equal, honest
    assert not changed.equal, changed


def compared(engine: str, tiny: Mapping[str, Any], change: Mapping[str, Any], folder: Path) -> Proof:
    """The checkpoint of `tiny`, exported with a configuration that is changed behind transformers' back."""
    from edgewright_builder.parity.compare import comparison
    from edgewright_builder.parity.provers import PROVERS

    folder.mkdir()
    checkpoint, prover = folder / "checkpoint", PROVERS[engine]
    model = prover.make(tiny, checkpoint)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    (checkpoint / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    served = prover.serve(checkpoint, bool(tiny["tie_word_embeddings"]), folder)
    figures = comparison(model, prover.sequences, served, proof_traits(engine).tolerance)
    return Proof(engine, tiny, **figures, seconds=0.0, versions={})

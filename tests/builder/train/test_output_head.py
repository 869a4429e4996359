"""Families that scale or soft-cap their logits, against transformers' own logits on tiny random models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from edgewright_builder.scoring.local import LocalScorer
from edgewright_builder.teacher_cache.hidden_states import cache_hidden_states, read_head, read_hidden_states
from edgewright_builder.train.output_head import output_head
from edgewright_builder.train.samples import Sample
from tests.support.tiny_models import tiny_tokenizer

SIZES = {
    "vocab_size": 384, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
    "initializer_range": 0.3,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 8},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "attention_multiplier": 0.25},
    "cohere": {"logit_scale": 0.0625},
    "cohere2": {"logit_scale": 0.25},
}


def model_of(family: str) -> Any:
    torch.manual_seed(3)
    config = AutoConfig.for_model(family, **(SIZES | FAMILIES[family]))
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_gives_the_logits_of_transformers(family: str) -> None:
    model, tokens = model_of(family), torch.tensor([[5, 17, 29, 41, 53]])
    with torch.no_grad():
        logits = model(input_ids=tokens).logits[0]
        hidden = model.get_decoder()(input_ids=tokens).last_hidden_state[0]
    head = output_head(model)
    torch.testing.assert_close(head.logits(hidden), logits, rtol=1e-4, atol=1e-5)
    plain = hidden @ model.get_output_embeddings().weight.detach().T
    assert not torch.allclose(plain, logits, rtol=1e-2), "the family does nothing to its logits"


@pytest.mark.parametrize("family", FAMILIES)
def test_such_a_teacher_is_cached_with_all_that_its_logits_need(family: str, tmp_path: Path) -> None:
    model, samples = model_of(family), [Sample((5, 17, 29, 41, 53), 1)]
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    cache_hidden_states(tmp_path / "model", samples, 64, 0, tmp_path, lambda *_: None)
    states = read_hidden_states(tmp_path, samples)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([samples[0].tokens])).logits[0, 1:-1]
    torch.testing.assert_close(states.head.logits(states.hidden_of(0)), logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("published", "kept"), [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32)]
)
def test_a_head_is_kept_in_sixteen_bits_where_they_hold_it_exactly(
    published: torch.dtype, kept: torch.dtype, tmp_path: Path
) -> None:
    model, samples = model_of("cohere").to(published), [Sample((5, 17, 29, 41, 53), 1)]
    model.config.logit_scale = 1.0
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    cache_hidden_states(tmp_path / "model", samples, 64, 0, tmp_path, lambda *_: None)
    assert read_head(tmp_path).weight.dtype == kept
    weight = model.get_output_embeddings().weight.detach().float()
    assert torch.equal(read_hidden_states(tmp_path, samples).head.weight, weight)


@pytest.mark.parametrize("family", FAMILIES)
def test_such_a_model_is_scored(family: str) -> None:
    scorer = LocalScorer(model_of(family), tiny_tokenizer())  # it compares itself with the plain forward
    assert len(scorer.score([("Why is", [" it", " the sky"])])[0]) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_in_bfloat16_are_nearly_the_same_and_logits_the_very_same(family: str) -> None:
    head = output_head(model_of(family))
    rounded = head.with_gradients_in(torch.bfloat16).cut(200)
    hidden, slope = torch.randn(7, 32), torch.randn(7, 200)
    logits = head.cut(200).logits(hidden)
    assert torch.equal(rounded.logits(hidden), logits)
    exact = head.cut(200).pull_back(slope.clone(), head.bend(logits))
    nearly = rounded.pull_back(slope.clone(), head.bend(logits)).float()
    assert 0 < (nearly - exact).norm() < 0.02 * exact.norm()

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import InputError, RefusedError
from edgewright_builder.fit.architecture import Architecture, architecture_from_config
from edgewright_builder.fit.memory import Configuration, load_calibration, predict_memory
from edgewright_builder.fit.plan import Wishes, candidates, make_plan
from edgewright_builder.fit.quality_loss import expected_divergence

SMOLLM2_135M = {
    "model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536,
    "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152,
    "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA_3_2_3B = {
    "model_type": "llama", "num_hidden_layers": 28, "hidden_size": 3072, "intermediate_size": 8192,
    "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256,
    "max_position_embeddings": 131072, "tie_word_embeddings": True,
}  # fmt: skip
SMOL, LLAMA = architecture_from_config(SMOLLM2_135M), architecture_from_config(LLAMA_3_2_3B)
CALIBRATION = load_calibration("onnxruntime-genai")
ARCHITECTURES = st.sampled_from([SMOL, LLAMA])
CONFIGURATIONS = st.builds(
    Configuration, layers=st.integers(1, 28), weight_bits=st.just(4), group_size=st.sampled_from([32, 64]),
    embedding_bits=st.sampled_from([4, 8]), context_tokens=st.integers(64, 8192), concurrency=st.integers(1, 8),
)  # fmt: skip


def peak(architecture: Architecture, m: Configuration) -> int:
    return predict_memory(architecture, m, CALIBRATION).peak_bytes


def test_parameters_are_those_the_models_publish() -> None:
    assert SMOL.parameters == 134_515_008
    assert LLAMA.parameters == 3_212_749_824


def test_a_4_bit_3b_with_a_tied_8_bit_embedding_takes_under_2_gb() -> None:
    m = Configuration(28, 4, 128, 8, 2048, 1)
    assert predict_memory(LLAMA, m, CALIBRATION).weights_bytes <= 2.2e9
    assert LLAMA.bf16_bytes == pytest.approx(6.43e9, rel=0.01)


@settings(deadline=None)
@given(ARCHITECTURES, CONFIGURATIONS, st.sampled_from(["layers", "context_tokens", "concurrency"]))
def test_more_depth_context_or_concurrency_never_needs_less_memory(
    architecture: Architecture, m: Configuration, field: str
) -> None:
    more = replace(m, **{field: getattr(m, field) + 1})
    assert peak(architecture, more) >= peak(architecture, m)


@settings(deadline=None)
@given(ARCHITECTURES, CONFIGURATIONS)
def test_more_bits_never_need_less_memory(architecture: Architecture, m: Configuration) -> None:
    four = peak(architecture, replace(m, embedding_bits=4))
    assert peak(architecture, replace(m, embedding_bits=8)) >= four
    assert peak(architecture, replace(m, group_size=32)) >= peak(architecture, replace(m, group_size=64))


@settings(deadline=None)
@given(ARCHITECTURES, st.integers(64, 8192), st.integers(100, 8000))
def test_a_plan_never_exceeds_its_budget(
    architecture: Architecture, context_tokens: int, budget_mib: int
) -> None:
    wishes = Wishes(context_tokens=context_tokens, concurrency=1)
    try:
        plan = make_plan(architecture, wishes, budget_mib * 2**20, CALIBRATION)
    except RefusedError:
        return
    assert plan.memory.peak_bytes <= budget_mib * 2**20


@settings(deadline=None)  # it searches every plan, twice, on however busy a machine
@given(st.integers(120, 400), st.integers(1, 100))
def test_a_larger_budget_never_gives_a_worse_plan(budget_mib: int, more_mib: int) -> None:
    wishes = Wishes(context_tokens=1024, concurrency=1)
    try:
        small = make_plan(SMOL, wishes, budget_mib * 2**20, CALIBRATION)
    except RefusedError:
        return
    large = make_plan(SMOL, wishes, (budget_mib + more_mib) * 2**20, CALIBRATION)
    assert large.expected_divergence <= small.expected_divergence


def test_an_ample_budget_keeps_every_layer_and_8_bit_embeddings() -> None:
    plan = make_plan(SMOL, Wishes(2048, 1), 2**40, CALIBRATION)
    assert (plan.configuration.layers, plan.configuration.embedding_bits) == (30, 8)
    every = candidates(SMOL, Wishes(2048, 1), "onnxruntime-genai")
    assert plan.expected_divergence == min(expected_divergence(SMOL, m) for m in every)


def test_a_wish_is_kept_or_refused_but_never_changed() -> None:
    wishes = Wishes(2048, 1, layers=20, group_size=32, embedding_bits=8)
    m = make_plan(SMOL, wishes, 2**40, CALIBRATION).configuration
    assert (m.layers, m.group_size, m.embedding_bits) == (20, 32, 8)
    with pytest.raises(RefusedError, match="The smallest needs"):
        make_plan(SMOL, wishes, 10 * 2**20, CALIBRATION)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "'mamba' is not supported"),
        ({"hidden_size": None}, "lacks a positive hidden_size"),
        ({"num_key_value_heads": 2}, "9 attention heads are no multiple of 2 KV heads"),
        ({"vocab_size": -1}, "lacks a positive vocab_size"),
    ],
)
def test_an_impossible_config_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        architecture_from_config(SMOLLM2_135M | change)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (Wishes(9000, 1), "9000 tokens is asked for; the model's maximum is 8192"),
        (Wishes(1024, 1, layers=31), "31 is asked for; the model has 30 layers"),
        (Wishes(1024, 1, group_size=128), "128 does not divide this model; the largest that does is 64"),
    ],
)
def test_a_wish_the_model_cannot_have_is_refused_with_both_numbers(wishes: Wishes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(SMOL, wishes, 2**40, CALIBRATION)


def test_the_group_size_is_the_largest_that_divides() -> None:
    assert (SMOL.largest_group_size(), LLAMA.largest_group_size()) == (64, 128)
    with pytest.raises(InputError, match="No group size"):
        replace(SMOL, intermediate_size=1500).largest_group_size()

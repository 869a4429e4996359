"""Scoring: shared contexts, batches and tokens give what the definition of log-likelihood gives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import InputError
from edgewright_builder.scoring.local import LocalScorer, batches, plain_log_likelihood
from edgewright_builder.scoring.tokens import encode_pair
from tests.support.tiny_models import tiny_model, tiny_tokenizer

ITEMS = [
    ("Question: Why is the sky blue?\nAnswer:", [" Light of short waves is spread more.", " Rain", " A"]),
    ("What do plants need ", ["water", "light and air to grow"]),
    ("The following are multiple choice questions.\n\nWhich?\nA. wind\nB. rain\nAnswer:", [" A", " B"]),
    ("", ["Gravity pulls it down."]),
]


def naive(context: str, continuation: str) -> float:
    tokenizer = tiny_tokenizer()
    return plain_log_likelihood(
        tiny_model(), *encode_pair(tokenizer.encode, context, continuation, tokenizer.bos_token_id)
    )


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_scores_equal_a_plain_forward_over_all_logits(batch_tokens: int) -> None:
    scores = LocalScorer(tiny_model(), tiny_tokenizer(), batch_tokens).score(ITEMS)
    for (context, continuations), values in zip(ITEMS, scores, strict=True):
        assert values == pytest.approx([naive(context, text) for text in continuations], abs=1e-4)


def test_a_context_longer_than_the_model_loses_its_beginning() -> None:
    scorer = LocalScorer(tiny_model(), tiny_tokenizer())
    tail = " Plants need water" * 100
    (long,), (longer,) = scorer.score([(tail, [" and air"]), (" wind rain snow" + tail, [" and air"])])
    assert long == pytest.approx(longer, abs=1e-4)


def test_a_model_whose_head_is_not_the_whole_output_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(seed=3)
    plain = type(model).forward

    def scaled(self: object, *args: object, **kwargs: object) -> object:
        output = plain(self, *args, **kwargs)
        output.logits = output.logits * 0.1
        return output

    monkeypatch.setattr(type(model), "forward", scaled)
    with pytest.raises(InputError, match="cannot be scored"):
        LocalScorer(model, tiny_tokenizer())


def test_trailing_blanks_of_the_context_belong_to_the_continuation() -> None:
    encode = tiny_tokenizer().encode
    assert encode_pair(encode, "What do plants need ", "water", 0) == encode_pair(
        encode, "What do plants need", " water", 0
    )


def test_an_empty_context_is_the_prefix_token() -> None:
    encode = tiny_tokenizer().encode
    assert encode_pair(encode, "", "water", 0) == ([0], encode("water"))


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 200))
@settings(max_examples=50)
def test_batches_keep_order_and_stay_within_their_tokens(lengths: list[int], limit: int) -> None:
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    made = list(batches(order, lengths.__getitem__, limit))
    assert [i for batch in made for i in batch] == order
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= limit for batch in made)

"""Scoring: shared contexts, batches and tokens give what the definition of log-likelihood gives."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import InputError
from edgewright_builder.scoring.local import LocalScorer, TokenRow, lay_out, packs, plain_log_likelihood
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


@pytest.mark.parametrize("pack_tokens", [1, 64, 4096, None])
def test_scores_equal_a_plain_forward_over_all_logits(pack_tokens: int | None) -> None:
    scores = LocalScorer(tiny_model(), tiny_tokenizer(), pack_tokens).score(ITEMS)
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


def test_without_a_first_or_last_token_an_empty_context_is_refused_and_others_are_scored() -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.bos_token = tokenizer.eos_token = None
    scorer = LocalScorer(tiny_model(), tokenizer)
    assert scorer.score([ITEMS[1]]) == LocalScorer(tiny_model(), tiny_tokenizer()).score([ITEMS[1]])
    with pytest.raises(InputError, match="neither a first nor a last token"):
        scorer.score([ITEMS[3]])


def test_trailing_blanks_of_the_context_belong_to_the_continuation() -> None:
    encode = tiny_tokenizer().encode
    assert encode_pair(encode, "What do plants need ", "water", 0) == encode_pair(
        encode, "What do plants need", " water", 0
    )


def test_an_empty_context_is_the_prefix_token() -> None:
    encode = tiny_tokenizer().encode
    assert encode_pair(encode, "", "water", 0) == ([0], encode("water"))


TOKENS = st.lists(st.integers(0, 383), min_size=1, max_size=8)
ROWS = st.builds(TokenRow, TOKENS, st.lists(TOKENS, min_size=1, max_size=4))


@given(st.lists(st.integers(0, 383), max_size=8), st.lists(ROWS, min_size=1, max_size=6), st.integers(1, 80))
@settings(max_examples=60, deadline=None)
def test_packed_questions_score_as_each_choice_alone(
    beginning: list[int], rows: list[TokenRow], pack_tokens: int
) -> None:
    rows = [TokenRow([*beginning, *row.context], row.continuations) for row in rows]
    scorer, model = LocalScorer(tiny_model(), tiny_tokenizer()), tiny_model()
    scores = [values for pack in packs(rows, pack_tokens) for values in scorer._score_pack(pack)]
    assert len(scores) == len(rows)
    for row, values in zip(rows, scores, strict=True):
        alone = [plain_log_likelihood(model, row.context, tokens) for tokens in row.continuations]
        assert values == pytest.approx(alone, abs=1e-4)


@given(st.lists(ROWS, max_size=12), st.integers(1, 100))
@settings(max_examples=50)
def test_packs_keep_order_and_stay_within_their_tokens(rows: list[TokenRow], limit: int) -> None:
    made = list(packs(rows, limit))
    assert [row for pack in made for row in pack] == rows
    assert all(len(pack) == 1 or len(lay_out(pack).tokens) <= limit for pack in made)


def test_what_questions_have_in_common_is_read_once() -> None:
    rows = [TokenRow([1, 2, 3, 4], [[5, 6], [7]]), TokenRow([1, 2, 9], [[5, 6]])]
    pack = lay_out(rows)
    assert pack.tokens.tolist() == [1, 2, 3, 4, 5, 9, 5]
    assert pack.positions.tolist() == [0, 1, 2, 3, 4, 2, 3]
    assert pack.predicting.tolist() == [3, 4, 3, 5, 6]
    assert pack.predicted.tolist() == [5, 6, 7, 5, 6]

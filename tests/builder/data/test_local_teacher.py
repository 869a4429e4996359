"""T1 on this machine: sampling, batches and shared beginnings change nothing but the speed."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import InputError
from edgewright_builder.data.data_teacher import Chat, TeacherSampling
from edgewright_builder.data.local_teacher import LocalClient, common_prefix_length, sample
from tests.support.tiny_models import tiny_model, tiny_tokenizer

GREEDY = TeacherSampling(temperature=0.0)


def client() -> LocalClient:
    return LocalClient(tiny_model(), tiny_tokenizer(), "tiny")


def chats(*texts: str) -> list[Chat]:
    shared = [
        {"role": "user", "content": "What do plants need?"},
        {"role": "assistant", "content": "Water and light."},
    ]
    return [[*shared, {"role": "user", "content": text}] for text in texts]


TEXTS = (
    "Which force pulls the spoon?",
    "Rain",
    "Why is the sky so blue over there?",
    "Name clouds and snow.",
)


def test_a_batch_gives_what_transformers_generates_for_each_prompt_alone() -> None:
    tokenizer = tiny_tokenizer()
    together = client().generate(chats(*TEXTS), max_tokens=12, sampling=GREEDY, seed=0)
    for chat, completion in zip(chats(*TEXTS), together, strict=True):
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([tokenizer.encode(prompt)])
        alone = tiny_model().generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0
        )
        expected = tokenizer.decode(alone[0, ids.shape[1] :], skip_special_tokens=True).strip()
        assert completion.text == expected


def test_equal_seeds_give_equal_text_and_others_do_not() -> None:
    def texts(seed: int) -> list[str]:
        return [
            c.text
            for c in client().generate(chats(*TEXTS), max_tokens=16, sampling=TeacherSampling(), seed=seed)
        ]

    assert texts(1) == texts(1) != texts(2)


def test_generation_ends_at_a_stop_string_or_at_max_tokens() -> None:
    (whole,) = client().generate(chats("Rain"), max_tokens=12, sampling=GREEDY, seed=0)
    assert not whole.complete
    assert whole.tokens == 12
    stop = whole.text[3:5]
    (cut,) = client().generate(chats("Rain"), max_tokens=12, sampling=GREEDY, seed=0, stop=(stop,))
    assert cut.complete
    assert cut.text == whole.text[: whole.text.index(stop)].strip()
    assert cut.tokens < 12


def test_a_template_that_knows_no_system_turn_gets_it_with_the_first_question() -> None:
    made = copy.deepcopy(tiny_tokenizer())
    made.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    )
    model = LocalClient(tiny_model(), made, "tiny")
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    expected = made.encode("<user>Be brief.\n\nWhy?", add_special_tokens=False)
    assert model._tokens([chat]) == [expected]


def test_a_template_that_can_not_write_the_prompts_is_named() -> None:
    made = copy.deepcopy(tiny_tokenizer())
    made.chat_template = "{{ 1 / 0 }}"
    with pytest.raises(
        InputError, match=r"The chat template of T1, tiny, can't write its prompts .division by zero"
    ):
        LocalClient(tiny_model(), made, "tiny").generate(chats("x"), max_tokens=1, sampling=GREEDY, seed=0)


def test_a_tokenizer_without_chat_template_is_refused() -> None:
    plain = copy.deepcopy(tiny_tokenizer())
    plain.chat_template = None
    with pytest.raises(InputError, match="instruction-tuned"):
        LocalClient(tiny_model(), plain, "tiny")


def test_a_rating_is_the_expected_digit_or_none_if_digits_are_unlikely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert client().rate(chats("Score"), seed=0)[0].score is None
    monkeypatch.setattr("edgewright_builder.data.local_teacher.MINIMUM_SCORE_MASS", 0.0)
    tokenizer = tiny_tokenizer()
    (rating,) = client().rate(chats("Score"), seed=0)
    prompt = tokenizer.apply_chat_template(chats("Score")[0], tokenize=False, add_generation_prompt=True)
    logits = tiny_model()(torch.tensor([tokenizer.encode(prompt)])).logits[0, -1].detach()
    digits = torch.softmax(logits, -1)[[tokenizer.encode(d)[-1] for d in "12345"]]
    expected = float((digits * torch.arange(1.0, 6.0)).sum() / digits.sum())
    assert rating.score == pytest.approx(expected, abs=1e-3)


def test_relevance_is_the_gain_of_log_likelihood_per_token() -> None:
    (first, second) = client().relevance(
        [("Why is the sky blue?", "Light."), ("Which force?", "Gravity pulls it.")]
    )
    assert first != second
    assert client().relevance([("Which force?", "Gravity pulls it.")]) == pytest.approx([second], abs=1e-3)


@given(st.integers(0, 2**31), st.sampled_from([0.1, 0.5, 0.95]), st.sampled_from([1, 4, 40]))
@settings(max_examples=60, deadline=None)
def test_only_tokens_of_the_nucleus_are_sampled_however_short_the_shortlist(
    seed: int, top_p: float, shortlist: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 40, generator=generator) * 2
    tokens = sample(logits, TeacherSampling(temperature=1.0, top_p=top_p), generator, shortlist)
    ordered, index = torch.softmax(logits, -1).sort(dim=-1, descending=True)
    for row, token in enumerate(tokens.tolist()):
        rank = index[row].tolist().index(token)
        assert float(ordered[row, :rank].sum()) < top_p + 1e-6


def test_samples_follow_the_probabilities() -> None:
    logits = torch.log(torch.tensor([0.6, 0.3, 0.1])).repeat(4000, 1)
    tokens = sample(logits, TeacherSampling(temperature=1.0, top_p=1.0), torch.Generator().manual_seed(0))
    shares = torch.bincount(tokens, minlength=3) / 4000
    assert shares.tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_the_common_prefix_stops_at_the_first_difference() -> None:
    assert common_prefix_length([[1, 2, 3], [1, 2, 4], [1, 2]]) == 2
    assert common_prefix_length([[1], [2]]) == 0

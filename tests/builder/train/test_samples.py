"""Dialogues become samples: all that comes before the last answer is its prompt, or the build says that it can't be."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edgewright.errors import InputError
from edgewright_builder.train.samples import chat_texts, make_sample
from tests.support.tiny_models import tiny_tokenizer

EVERY_ROLE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
DIALOGUE = {
    "instruction": "And on Sundays?", "input": "", "output": "Closed.", "system": "A museum.",
    "history": [["When?", "At ten."]],
}  # fmt: skip


def tokenizer(template: str | None) -> Any:
    made = copy.deepcopy(tiny_tokenizer())
    made.chat_template = template
    return made


def test_the_dialogue_before_an_answer_is_its_prompt() -> None:
    prompt, text = chat_texts(tokenizer(EVERY_ROLE), DIALOGUE)
    before = "<system>A museum.</><user>When?</><assistant>At ten.</><user>And on Sundays?</>"
    assert (prompt, text) == (before + "<assistant>", before + "<assistant>Closed.</>")


def test_without_a_chat_template_a_dialogue_is_written_as_alpaca_writes_instructions() -> None:
    prompt, text = chat_texts(tokenizer(None), DIALOGUE)
    assert prompt == (
        "A museum.\n\n### Instruction:\nWhen?\n\n### Response:\nAt ten.\n\n"
        "### Instruction:\nAnd on Sundays?\n\n### Response:\n"
    )
    assert text.startswith(prompt + "Closed.")


THINKING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<assistant>{{ m.content.split('</think>')[-1] }}<end>"
    "{% else %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
)


def test_where_a_template_asks_otherwise_than_it_answers_what_is_learned_follows_what_is_asked() -> None:
    made, pair = tokenizer(THINKING), {"instruction": "Why?", "input": "", "output": "end"}
    prompt, text = chat_texts(made, pair)
    assert prompt == "<user>Why?<assistant><think>\n"
    assert text == prompt + "end<end>"
    sample = make_sample(made, pair, "response", 512)
    assert sample is not None
    assert made.decode(sample.tokens[sample.first + 1 :]) == "end<end>"


def test_only_the_last_answer_counts() -> None:
    made = tokenizer(EVERY_ROLE)
    sample = make_sample(made, DIALOGUE, "response", 512)
    assert sample is not None
    assert made.decode(sample.tokens[sample.first + 1 :]) == "Closed.</>"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}", "A museum"),
        ("{{ messages[-1].content }}", "A museum|When"),
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('No system role!') }}{% endif %}",
            "No system role!",
        ),
        ("{{ messages[0].nothing.at_all }}", "nothing"),
        ("{{ 1 / 0 }}", "division by zero"),
        (
            EVERY_ROLE.replace(
                "{{ m.content }}", "{{ m.content if m.role != 'assistant' or not loop.last }}"
            ).replace("<assistant>{% e", "<assistant>?{% e"),
            "assistant's answer out",
        ),
    ],
    ids=["system-left-out", "history-left-out", "refused", "broken", "a-sum", "answer-left-out"],
)
def test_a_template_that_leaves_turns_out_or_refuses_them_is_named(template: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        chat_texts(tokenizer(template), DIALOGUE)
    assert "chat template" in str(raised.value)

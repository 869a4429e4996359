from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_builder.alignment.boundaries import Part, common_boundaries, equal_parts
from edgewright_builder.alignment.vocabulary import Vocabulary, vocabulary_of
from tests.builder.alignment.test_vocabulary import KINDS, Loaded
from tests.support.tiny_tokenizers import TEXT

TEXTS = st.text(min_size=1, max_size=40) | st.sampled_from(TEXT.split("\n"))
# One dialogue's answer in two chat templates.
OURS, THEIRS = "<|user|>why?<|assistant|>{}<|end|>", "[INST] why? [/INST] {}</s>"


def vocabulary(kind: str) -> Vocabulary:
    return vocabulary_of(Loaded(KINDS[kind]), kind)


def prefix(side: Vocabulary, tokens: list[int], last: int, text: str) -> bytes:
    """What the model has read after token `last`."""
    written = b"".join(side.texts.get(token, side.names[token].encode()) for token in tokens[: last + 1])
    return written if text.encode().startswith(written) else written[len(side.prefix) :]


@pytest.mark.parametrize("teacher", KINDS)
@pytest.mark.parametrize("student", ["byte-level", "SentencePiece with a prefix"])
@given(answer=TEXTS)
@settings(max_examples=40, deadline=None)
def test_at_a_common_boundary_both_have_read_the_same_part_of_the_answer(
    student: str, teacher: str, answer: str
) -> None:
    ours, theirs = vocabulary(student), vocabulary(teacher)
    renderings = OURS.format(answer), THEIRS.format(answer)
    after = (len(OURS[: OURS.index("{}")].encode()), len(THEIRS[: THEIRS.index("{}")].encode()))
    parts = equal_parts(renderings[0].encode(), renderings[1].encode(), [answer.encode()], after)
    encodings = ours.encode(renderings[0]), theirs.encode(renderings[1])
    found = common_boundaries(
        parts, ours.token_ends(renderings[0], encodings[0]), theirs.token_ends(renderings[1], encodings[1])
    )
    assert list(found.student) == sorted(set(found.student))
    assert list(found.teacher) == sorted(set(found.teacher))
    for token, other in zip(found.student, found.teacher, strict=True):
        read = prefix(ours, encodings[0].ids, token, renderings[0])[after[0] :]
        assert read == prefix(theirs, encodings[1].ids, other, renderings[1])[after[1] :]
        assert answer.encode().startswith(read)


def test_equal_renderings_are_one_part() -> None:
    text = OURS.format("Because.").encode()
    assert equal_parts(text, text, [b"Because."], (0, 0)) == [Part(0, 0, len(text))]


def test_what_both_templates_write_between_two_contents_joins_them() -> None:
    assert equal_parts(b"<a>one\ntwo<b>", b"[x]one\ntwo[y]", [b"one", b"two"], (0, 0)) == [Part(3, 3, 7)]


def test_an_answer_is_not_looked_for_in_the_templates_own_words() -> None:
    ours, theirs = b"<|assistant|>a<|end|>", b"[assistant]a[end]"
    assert equal_parts(ours, theirs, [b"a"], (13, 11)) == [Part(13, 11, 1)]


def test_a_content_that_a_template_changes_is_left_out() -> None:
    assert equal_parts(b"<a> x <b>", b"[a]X[b]", [b" x "], (0, 0)) == []


def test_tokens_that_reach_over_a_parts_border_have_no_boundary_there() -> None:
    parts = [Part(3, 2, 4)]
    found = common_boundaries(parts, [3, 5, 7, 9], [1, 4, 7])  # the teacher's second token crosses the border
    assert (found.student, found.teacher) == ((1,), (1,))

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from edgewright_builder.alignment.projection import Ends, Projection, project
from edgewright_builder.alignment.vocabulary import Vocabulary, vocabulary_of
from tests.builder.alignment.test_vocabulary import Loaded
from tests.support.tiny_tokenizers import byte_level, sentencepiece

NONE = Ends(frozenset(), frozenset())
PAIRS = {
    "byte-level and SentencePiece": (byte_level(420), sentencepiece(560)),
    "SentencePiece and byte-level": (sentencepiece(500, prefix=True), byte_level(460, digits=True)),
    "two sizes": (byte_level(300), byte_level(500)),
    "words and phrases": (byte_level(500), sentencepiece(700, across_words=True)),
}


def vocabularies(student: Tokenizer, teacher: Tokenizer) -> tuple[Vocabulary, Vocabulary]:
    return vocabulary_of(Loaded(student), "student"), vocabulary_of(Loaded(teacher), "teacher")


def token_id(tokenizer: Tokenizer, name: str) -> int:
    token = tokenizer.token_to_id(name)
    assert token is not None, f"no token {name!r}"
    return token


def projected(student: Vocabulary, teacher: Vocabulary, ends: Ends = NONE) -> Projection:
    return project(student, teacher, ends, (len(student.names), len(teacher.names)))


@pytest.mark.parametrize("pair", PAIRS)
def test_every_token_counts_for_a_shared_text_that_it_begins_with(pair: str) -> None:
    student, teacher = vocabularies(*PAIRS[pair])
    projection = projected(student, teacher)
    in_both = set(student.texts.values()) & set(teacher.texts.values())
    letters: dict[int, bytes] = {}
    for side, letter_of in ((student, projection.student), (teacher, projection.teacher)):
        for token, text in side.texts.items():
            if text in in_both:
                assert letters.setdefault(letter_of[token], text) == text
    assert len(letters) == len(in_both)
    for side, letter_of in ((student, projection.student), (teacher, projection.teacher)):
        for token, text in side.texts.items():
            assert letter_of[token] == projection.letters - 1 or text.startswith(letters[letter_of[token]])


@pytest.mark.parametrize("pair", PAIRS)
def test_no_token_of_text_is_lost_where_both_know_all_bytes(pair: str) -> None:
    student, teacher = vocabularies(*PAIRS[pair])
    projection = projected(student, teacher)
    assert all(projection.student[token] < projection.letters - 1 for token in student.texts)
    assert all(projection.teacher[token] < projection.letters - 1 for token in teacher.texts)


@pytest.mark.parametrize("packed_by", ["student", "teacher"])
def test_a_number_that_one_of_them_packs_counts_for_its_first_digit(packed_by: str) -> None:
    packing, splitting = byte_level(520), byte_level(400, digits=True)
    numbers = [name for name in packing.get_vocab() if name.strip("Ġ").isdigit() and len(name) > 2]
    assert numbers, "the tokenizer packs no number: train it on more"
    if packed_by == "student":
        student, teacher = vocabularies(packing, splitting)
        projection = projected(student, teacher)
        packed, single = projection.student, projection.teacher
    else:
        student, teacher = vocabularies(splitting, packing)
        projection = projected(student, teacher)
        packed, single = projection.teacher, projection.student
    for name in numbers:
        first = token_id(splitting, "Ġ") if name.startswith("Ġ") else token_id(splitting, name[0])
        assert packed[token_id(packing, name)] == single[first]


def test_equal_vocabularies_project_to_themselves() -> None:
    student, teacher = vocabularies(byte_level(420), byte_level(420))
    ends = Ends(student.special, teacher.special)
    projection = project(student, teacher, ends, (430, 430))  # heads are padded
    assert projection.student == projection.teacher == tuple(range(430))
    assert projection.letters == 431


def test_tokens_that_end_a_turn_count_for_each_other_under_any_name() -> None:
    student, teacher = vocabularies(
        byte_level(420, ("<|im_end|>", "<pad>")), sentencepiece(520, ("<start_of_turn>", "<end_of_turn>"))
    )
    ends = Ends(
        frozenset({token_id(student.tokenizer, "<|im_end|>")}),
        frozenset({token_id(teacher.tokenizer, "<end_of_turn>")}),
    )
    projection = projected(student, teacher, ends)
    (ours,), (theirs,) = ends.student, ends.teacher
    other = projection.letters - 1
    assert projection.student[ours] == projection.teacher[theirs] != other
    assert projection.student[token_id(student.tokenizer, "<pad>")] == other
    assert projection.teacher[token_id(teacher.tokenizer, "<start_of_turn>")] == other

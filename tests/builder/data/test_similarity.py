"""Near-duplicates and contamination are found, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgewright_builder.data.similarity import Contamination, SeenTexts, shingles

TEXTS = st.lists(st.text(alphabet="ab ", max_size=20), max_size=12)


def repeated(texts: list[str], threshold: float = 0.5) -> list[bool]:
    seen = SeenTexts(threshold)
    return [not seen.add(text) for text in texts]


@given(TEXTS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_what_is_kept_is_what_comparing_every_pair_keeps(texts: list[str], threshold: float) -> None:
    kept: list[frozenset[tuple[str, ...]]] = []
    expected = []
    for text in texts:
        grams = shingles(text, 2)
        known = any(len(grams & other) >= threshold * len(grams | other) for other in kept if grams & other)
        expected.append(known)
        if not known:
            kept.append(grams)
    assert repeated(texts, threshold) == expected


@given(TEXTS)
def test_removing_near_duplicates_twice_changes_nothing_more(texts: list[str]) -> None:
    kept = [text for text, known in zip(texts, repeated(texts), strict=True) if not known]
    assert not any(repeated(kept))


def test_case_and_punctuation_do_not_hide_a_duplicate() -> None:
    assert repeated(["What is the Sun made of?", "what is the sun, made of"]) == [False, True]


def test_a_question_that_shares_eight_words_with_an_evaluation_row_is_contaminated() -> None:
    rows = ["Which statement best explains why photosynthesis is the foundation of most food webs?"]
    contamination = Contamination(rows)
    assert "Say why photosynthesis is the foundation of most food webs." in contamination
    assert "Photosynthesis is the foundation of most plants." not in contamination
    assert "What do plants need?" not in contamination


def test_a_short_evaluation_question_counts_only_as_a_whole() -> None:
    contamination = Contamination(["What is a cell?"])
    assert "what is a cell" in contamination
    assert "What is a cell made of in plants?" not in contamination

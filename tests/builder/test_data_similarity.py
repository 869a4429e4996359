"""Near-duplicates and contamination are found, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgewright_builder.data.similarity import Contamination, jaccard, near_duplicates, shingles

TEXTS = st.lists(st.text(alphabet="ab ", max_size=20), max_size=12)
SHINGLES = st.text(alphabet="abc ", max_size=30).map(lambda text: shingles(text, 2))


@given(SHINGLES, SHINGLES)
def test_similarity_is_symmetric_between_0_and_1_and_1_for_equals(
    a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]
) -> None:
    assert 0.0 <= jaccard(a, b) <= 1.0
    assert jaccard(a, b) == jaccard(b, a)
    assert jaccard(a, a) == 1.0


@given(TEXTS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_what_is_kept_is_what_comparing_every_pair_keeps(texts: list[str], threshold: float) -> None:
    kept: list[frozenset[tuple[str, ...]]] = []
    expected = []
    for text in texts:
        grams = shingles(text, 2)
        repeated = bool(grams) and any(other and jaccard(grams, other) >= threshold for other in kept)
        expected.append(repeated)
        if not repeated:
            kept.append(grams)
    assert near_duplicates(texts, threshold) == expected


@given(TEXTS)
def test_removing_near_duplicates_twice_changes_nothing_more(texts: list[str]) -> None:
    kept = [text for text, repeated in zip(texts, near_duplicates(texts), strict=True) if not repeated]
    assert not any(near_duplicates(kept))


def test_case_and_punctuation_do_not_hide_a_duplicate() -> None:
    assert near_duplicates(["What is the Sun made of?", "what is the sun, made of"]) == [False, True]


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

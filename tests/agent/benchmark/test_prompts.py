"""What an engine may have kept of the prompts that it has read, and how long the next ones are."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent.benchmark.prompts import shuffles, words_for

GOLDEN = "to be read twice: what does a board do while it is on probation?"


class CountsBytes:
    """An engine whose tokens are bytes. It keeps every text that it has read."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    async def count(self, text: str) -> int:
        self.kept.append(text)
        return len(text)

    def unread(self, text: str) -> int:
        """Returns how many bytes of `text` it would have to read."""
        return len(text) - max(_same_beginning(text, kept) for kept in self.kept)


def _same_beginning(text: str, other: str) -> int:
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False))
    return len(list(same))


@given(seed=st.integers(0, 2**32 - 1), input_tokens=st.integers(20, 400))
async def test_an_engine_reads_every_token_of_a_prompt_made_unlike_those_it_has_kept(
    seed: int, input_tokens: int
) -> None:
    engine = CountsBytes()
    words = await words_for(input_tokens, engine.count, seed)
    engine.kept.append(GOLDEN)
    prompt = shuffles(words, seed, unlike=[GOLDEN])(0)
    assert engine.unread(prompt) == len(prompt)
    assert sorted(prompt.split()) == sorted(words)


@given(seed=st.integers(0, 2**32 - 1), input_tokens=st.integers(20, 400))
async def test_a_prompt_is_at_most_a_word_away_from_the_length_asked_for(
    seed: int, input_tokens: int
) -> None:
    words = await words_for(input_tokens, CountsBytes().count, seed)
    assert abs(input_tokens - len(" ".join(words))) <= len(" there")


@pytest.mark.parametrize("words", [["the"], ["the", "the"], ["the", "then"]])
def test_words_that_all_begin_alike_still_make_a_prompt(words: list[str]) -> None:
    assert sorted(shuffles(words, 0)(0).split()) == sorted(words)

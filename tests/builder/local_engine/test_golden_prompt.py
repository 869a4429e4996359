"""The golden prompt says as much about a board as it can, and no more than is certain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgewright_builder.local_engine.golden_prompt import (
    GOLDEN_TOKENS,
    PROMPTS,
    Greedy,
    agreement,
    golden_prompt,
)

SURE, TIE = 3.0, 0.2


class Engine:
    """Has its answers ready."""

    def __init__(self, answers: dict[str, Greedy]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, int]] = []
        self.is_open = False

    @contextmanager
    def open(self) -> Iterator[Engine]:
        self.is_open = True
        yield self
        self.is_open = False

    def greedy(self, prompt: str, max_tokens: int) -> Greedy:
        assert self.is_open
        self.asked.append((prompt, max_tokens))
        return self.answers[prompt]


def test_the_prompt_whose_answer_is_certain_for_longest_is_taken() -> None:
    engine = Engine(
        {
            "ties at once": Greedy((1, 2, 3, 4), (TIE, SURE, SURE, SURE)),
            "ties late": Greedy((5, 6, 7), (SURE, SURE, TIE)),
            "short": Greedy((8,), (SURE,)),
        }
    )
    golden = golden_prompt([engine.open], list(engine.answers))
    assert golden == {"prompt": "ties late", "tokens": [5, 6, 7], "leads": [SURE, SURE, TIE]}


def test_a_few_prompts_are_looked_at() -> None:
    prompts = [str(number) for number in range(3 * PROMPTS)]
    engine = Engine({prompt: Greedy((1,), (SURE,)) for prompt in prompts})
    assert golden_prompt([engine.open], prompts)["prompt"] == "0"
    assert engine.asked == [(prompt, GOLDEN_TOKENS) for prompt in prompts[:PROMPTS]]


def test_a_token_is_as_certain_as_in_the_arithmetic_that_is_least_sure_of_it() -> None:
    int8 = Engine(
        {
            "sure in int8 alone": Greedy((1, 2, 3), (SURE, SURE, SURE)),
            "sure in both": Greedy((4, 5, 6), (SURE, SURE, TIE)),
        }
    )
    float32 = Engine(
        {
            "sure in int8 alone": Greedy((1, 2, 3), (TIE, SURE, SURE)),
            "sure in both": Greedy((4, 5, 6), (4.0, 2.5, SURE)),
        }
    )
    golden = golden_prompt([int8.open, float32.open], list(int8.answers))
    assert golden == {"prompt": "sure in both", "tokens": [4, 5, 6], "leads": [SURE, 2.5, TIE]}


@pytest.mark.parametrize("other", [(1, 9, 3), (1,), (1, 9)], ids=["goes on", "ends", "goes another way"])
def test_nothing_is_certain_from_where_two_arithmetics_go_apart(other: tuple[int, ...]) -> None:
    agreed = agreement([Greedy((1, 2, 3), (SURE,) * 3), Greedy(other, (SURE,) * len(other))])
    assert agreed == Greedy((1, 2, 3), (SURE, 0.0, 0.0))


def test_engines_are_open_one_after_another() -> None:
    engines = [Engine({"a": Greedy((1,), (SURE,))}) for _ in range(2)]
    golden_prompt([engine.open for engine in engines], ["a"])
    assert [engine.asked for engine in engines] == [[("a", GOLDEN_TOKENS)]] * 2

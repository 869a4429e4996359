"""The golden prompt says as much about a board as it can, and no more than is certain."""

from __future__ import annotations

from edgewright_builder.local_engine.golden import GOLDEN_TOKENS, PROMPTS, Greedy, golden_prompt

SURE, TIE = 3.0, 0.2


class Engine:
    """Has its answers ready."""

    def __init__(self, answers: dict[str, Greedy]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, int]] = []

    def greedy(self, prompt: str, max_tokens: int) -> Greedy:
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
    golden = golden_prompt(engine, list(engine.answers))
    assert golden == {"prompt": "ties late", "tokens": [5, 6, 7], "leads": [SURE, SURE, TIE]}


def test_a_few_prompts_are_looked_at() -> None:
    prompts = [str(number) for number in range(3 * PROMPTS)]
    engine = Engine({prompt: Greedy((1,), (SURE,)) for prompt in prompts})
    assert golden_prompt(engine, prompts)["prompt"] == "0"
    assert engine.asked == [(prompt, GOLDEN_TOKENS) for prompt in prompts[:PROMPTS]]

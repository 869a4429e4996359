"""Prompts of one length that share next to nothing: shuffles of one multiset of words.

All have (nearly) the same number of tokens. Two of them begin alike by chance only, and none begins as the texts do
that were counted before, which the engine may have kept. How many words make the length that is asked for, the
engine's own count says.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

CALIBRATION_ROUNDS = 8
FIRST_WORDS_MAX = 16  # are counted first: a word may be as many tokens as it has bytes

# One token each in the usual byte-level vocabularies, with the blank before it.
WORDS = (  # noqa: SIM905 - a list of a hundred quoted words says the same in a hundred lines
    "the of and to in is that for it was on with as be at by this had not are but from or have an they "
    "which one you were all her she there would their we him been has when who will no more if out so said "
    "what up its about into than them can only other time new some could these two may first then do any"
).split()


async def words_for(
    input_tokens: int, count_tokens: Callable[[str], Awaitable[int]], seed: int = 0
) -> list[str]:
    """Returns words whose shuffles `count_tokens` counts as at most, and nearly, `input_tokens`."""
    choose = random.Random(seed).choices  # noqa: S311 - not a secret
    words = choose(WORDS, k=min(input_tokens, FIRST_WORDS_MAX))
    for _ in range(CALIBRATION_ROUNDS):
        counted = await count_tokens(" ".join(words))
        missing = (input_tokens - counted) * len(words) // counted
        if missing == 0:
            break
        words = words + choose(WORDS, k=missing) if missing > 0 else words[: max(1, len(words) + missing)]
    return words


def shuffles(words: list[str], seed: int, unlike: Sequence[str] = ()) -> Callable[[int], str]:
    """Returns a function from n to prompt number n of this seed: the words in an order of its own.

    It begins with another letter than `unlike` and than the texts that `words_for` counted, which all begin with
    the first word, wherever one of the words does.
    """
    begun = {text[:1] for text in (words[0], *unlike)}

    def prompt(number: int) -> str:
        order = words.copy()
        random.Random(f"{seed}/{number}").shuffle(order)  # noqa: S311 - not a secret
        first = next((index for index, word in enumerate(order) if word[0] not in begun), 0)
        order[0], order[first] = order[first], order[0]
        return " ".join(order)

    return prompt

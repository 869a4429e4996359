"""Who has which part of the KV cache, and which prompts can still be found there.

The pool is `lanes` times the context. A sequence gets a whole lane, a half, a quarter or an eighth of one, whatever
holds it; places of one width side by side are one batch. A finished sequence's prompt stays until its place is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from edgewright_agent.engine_worker.backend import CachePlace

SHARES = 8  # of a lane: the smallest place is an eighth of the context
# Reading a single token and reading it among others differ in the last bit, so the end of a prompt is always read as
# two tokens or more, and only tokens that were read so are used again.
SLICE_TOKENS_MIN = 2


@dataclass(eq=False)
class CacheRow:
    """A sequence's place. `tokens` are those at its beginning that another prompt may use again."""

    place: CachePlace
    adapter: Hashable
    tokens: list[int] = field(default_factory=list)
    active: bool = True

    def note_read(self, past: int, tokens: Sequence[int]) -> None:
        """`tokens` were put after the first `past`."""
        del self.tokens[past:]
        if len(tokens) >= SLICE_TOKENS_MIN and len(self.tokens) == past:
            self.tokens += tokens


Copy = Callable[[CachePlace, CachePlace, int], None]


class Pool:
    """The rows in use, and those kept for their prompts, least recently used first."""

    def __init__(self, pool_tokens: int, context_tokens: int, copy: Copy) -> None:
        self._context_tokens = context_tokens
        self._share = share_tokens(context_tokens)
        self._shares = pool_tokens // self._share
        self._copy = copy
        self._rows: list[CacheRow] = []

    def take(self, sequence_tokens: int, prompt: Sequence[int], adapter: Hashable) -> CacheRow | None:
        """A row for a sequence that begins with `prompt`; its `tokens` are there already. None if there is no room."""
        width = width_tokens(sequence_tokens, self._context_tokens)
        donor, shared = self._longest_match(prompt[: max(0, len(prompt) - SLICE_TOKENS_MIN)], adapter)
        if donor is not None:  # used just now
            self._rows.remove(donor)
            self._rows.append(donor)
        place = self._choose(width, donor, shared)
        if place is None:
            return None
        if donor is not None and donor.place != place:
            self._copy(donor.place, place, shared)
        self._rows = [row for row in self._rows if not _overlap(row.place, place)]
        row = CacheRow(place, adapter, list(prompt[:shared]))
        self._rows.append(row)
        return row

    def release(self, row: CacheRow) -> None:
        """The sequence has ended; its prompt stays as long as nobody needs the place."""
        self._rows.remove(row)
        row.active = False
        if row.tokens:
            self._rows.append(row)

    def _longest_match(self, prompt: Sequence[int], adapter: Hashable) -> tuple[CacheRow | None, int]:
        best, shared = None, SLICE_TOKENS_MIN - 1
        for row in self._rows:
            if row.adapter == adapter and (length := _common(row.tokens, prompt)) > shared:
                best, shared = row, length
        return best, shared if best is not None else 0

    def move_beside(self, row: CacheRow, others: Sequence[CacheRow], written_tokens: int) -> bool:
        """Puts an active row beside neighbours of its width; False where other active rows are in the way."""
        ends = (others[0].place, others[-1].place)
        free = self._without_active(row.place.width_tokens)
        place = min((each for each in free if _touches(each, ends)), key=self._last_use, default=None)
        if place is None:
            return False
        self._copy(row.place, place, written_tokens)
        self._rows = [other for other in self._rows if not _overlap(other.place, place)]
        row.place = place
        return True

    def _choose(self, width: int, donor: CacheRow | None, shared: int) -> CachePlace | None:
        """Where prompts are lost least: the prompt's own place if it only goes on, an empty one, the longest unused."""
        free = list(self._without_active(width))
        if donor is not None and donor.place in free and shared == len(donor.tokens):
            return donor.place
        return min(free, key=lambda place: (self._last_use(place), place.start_tokens), default=None)

    def _last_use(self, place: CachePlace) -> int:
        """When what is there was used: -1 where nothing is, else the higher the later."""
        numbers = (number for number, row in enumerate(self._rows) if _overlap(row.place, place))
        return max(numbers, default=-1)

    def _without_active(self, width: int) -> Iterator[CachePlace]:
        taken = [row.place for row in self._rows if row.active]
        for start in range(0, self._shares * self._share - width + 1, width):
            place = CachePlace(start, width)
            if not any(_overlap(place, other) for other in taken):
                yield place


def share_tokens(context_tokens: int) -> int:
    """Tokens of the smallest place."""
    return -(-context_tokens // SHARES)


def width_tokens(sequence_tokens: int, context_tokens: int) -> int:
    """Tokens of the place that such a sequence gets."""
    width = share_tokens(context_tokens)
    while width < sequence_tokens:
        width *= 2
    return width


def pool_tokens(context_tokens: int, lanes: int) -> int:
    """Tokens of the whole pool; what does not divide by 8 is rounded up."""
    return share_tokens(context_tokens) * SHARES * lanes


def _overlap(one: CachePlace, other: CachePlace) -> bool:
    return one.start_tokens < other.end_tokens and other.start_tokens < one.end_tokens


def _touches(place: CachePlace, others: Sequence[CachePlace]) -> bool:
    """Whether it is a direct neighbour of one of them."""
    return any(place.end_tokens == one.start_tokens or one.end_tokens == place.start_tokens for one in others)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))

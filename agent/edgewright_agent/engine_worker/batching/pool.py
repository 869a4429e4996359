"""Which sequence has which part of the KV cache, and which prompts can still be found there.

The pool holds `concurrency` whole contexts. A sequence gets room for a context, a half, a quarter or an eighth of one,
whatever holds it; rows of one width that lie side by side are one batch. A finished sequence's prompt stays until its
place is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from edgewright_agent.engine_worker.model.backend import CacheLayout, CachePlace

# Reading a token alone and reading it among others differ in the last bit. So the end of a prompt is always read as
# two tokens or more, and only tokens that were read so are used again.
SLICE_TOKENS_MIN = 2


@dataclass(eq=False)
class CacheRow:
    """One sequence's part of the cache. `tokens` are those at its beginning that another prompt may use again."""

    place: CachePlace
    adapter: Hashable
    tokens: list[int] = field(default_factory=list)
    active: bool = True

    def note_read(self, past: int, tokens: Sequence[int]) -> None:
        """Records that `tokens` were put after the first `past`."""
        del self.tokens[past:]
        if len(tokens) >= SLICE_TOKENS_MIN and len(self.tokens) == past:
            self.tokens += tokens


Copy = Callable[[CachePlace, CachePlace, int], None]


class Pool:
    """The rows in use, and those kept for their prompts, least recently used first."""

    def __init__(self, layout: CacheLayout, pool_tokens: int, context_tokens: int, copy: Copy) -> None:
        self._layout = layout
        self._pool_tokens = pool_tokens
        self._context_tokens = context_tokens
        self._copy = copy
        self._rows: list[CacheRow] = []

    def take(self, sequence_tokens: int, prompt: Sequence[int], adapter: Hashable) -> CacheRow | None:
        """Returns a row for a sequence that begins with `prompt`; None if there is no room.

        The row's `tokens` are those of the prompt that need not be read again.
        """
        width = self._layout.width_tokens(sequence_tokens)
        donor, shared = self._longest_match(prompt[: max(0, len(prompt) - SLICE_TOKENS_MIN)], adapter)
        if donor is not None:  # it was used just now
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
        """Ends the sequence; its prompt stays until another sequence needs the place."""
        self._rows.remove(row)
        row.active = False
        if row.tokens:
            self._rows.append(row)

    def spare(self, tokens: int) -> tuple[CachePlace, int] | None:
        """Returns a place and an offset where so many tokens may be written; None if active sequences have it all.

        Behind a kept prompt if one leaves room, so that no prompt is lost; else over the one unused for longest.
        """
        for row in self._rows:
            if not row.active and len(row.tokens) + tokens <= min(
                row.place.width_tokens, self._context_tokens
            ):
                return row.place, len(row.tokens)
        place = self._choose(self._layout.share_tokens, None, 0)
        if place is None:
            return None
        self._rows = [row for row in self._rows if not _overlap(row.place, place)]
        return place, 0

    def _longest_match(self, prompt: Sequence[int], adapter: Hashable) -> tuple[CacheRow | None, int]:
        best, shared = None, SLICE_TOKENS_MIN - 1
        for row in self._rows:
            if row.adapter == adapter and (length := _common(row.tokens, prompt)) > shared:
                best, shared = row, length
        return best, shared if best is not None else 0

    def move_beside(self, row: CacheRow, others: Sequence[CacheRow], written_tokens: int) -> bool:
        """Moves an active row beside neighbours of its width; False where other active rows are in the way."""
        ends = (others[0].place, others[-1].place)
        free = self._without_active(row.place.width_tokens)
        place = min((place for place in free if _touches(place, ends)), key=self._last_use, default=None)
        if place is None:
            return False
        self._copy(row.place, place, written_tokens)
        self._rows = [other for other in self._rows if not _overlap(other.place, place)]
        row.place = place
        return True

    def _choose(self, width: int, donor: CacheRow | None, shared: int) -> CachePlace | None:
        """Returns the place where the least is lost.

        That is the prompt's own place if the prompt only goes on, else an empty one, else the longest unused.
        """
        free = list(self._without_active(width))
        if donor is not None and donor.place in free and shared == len(donor.tokens):
            return donor.place
        return min(free, key=lambda place: (self._last_use(place), place.start_tokens), default=None)

    def _last_use(self, place: CachePlace) -> int:
        """Returns when the place was used: −1 if nothing is there, else a number that grows with time."""
        numbers = (number for number, row in enumerate(self._rows) if _overlap(row.place, place))
        return max(numbers, default=-1)

    def _without_active(self, width: int) -> Iterator[CachePlace]:
        taken = [row.place for row in self._rows if row.active]
        for start in range(0, self._pool_tokens - width + 1, width):
            place = CachePlace(start, width)
            if not any(_overlap(place, other) for other in taken):
                yield place


def _overlap(one: CachePlace, other: CachePlace) -> bool:
    return one.start_tokens < other.end_tokens and other.start_tokens < one.end_tokens


def _touches(place: CachePlace, others: Sequence[CachePlace]) -> bool:
    """Whether the place lies directly beside one of the others."""
    return any(place.end_tokens == one.start_tokens or one.end_tokens == place.start_tokens for one in others)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Returns the length of the common beginning."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))

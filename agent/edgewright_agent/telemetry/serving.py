"""Latency of requests: windows on the monotonic clock of the agent, and their distributions.

A token's time is when the engine's process computed it, where that says so (the ONNX Runtime worker: one clock for all
processes of a machine), else when it arrived from there (vLLM).
TTFT, time to first token: from the whole request being in the agent, before it waits for a slot, to the first token's
time; waiting and reading the prompt included.
ITL, inter-token latency: from one token's time to the next one's. Tokens that vLLM sends in one chunk arrive together:
the gap before the chunk, then 0 for each further one.
TPOT, time per output token: (last - first time) / (tokens - 1) of one request; absent below two tokens.
Of several answers to one request, ITL is taken within each. TPOT is the sum of their (last - first time), divided by
(tokens - answers). It is absent where the tokens can't be shared out among them.
An answer that the OpenAI API relays whole shows none of the three, only its tokens and its duration.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from edgewright_agent.telemetry.types import (
    Distribution,
    EndedRequest,
    EnergyWindow,
    Operation,
    Rejection,
    RequestSummary,
    ServedBy,
    ServingSummary,
)

VALUES_MAX = 1000

EnergyBetween = Callable[[float, float, float], "EnergyWindow | None"]
OnEnded = Callable[[EndedRequest], None]


def percentile(ordered: list[float], ratio: float) -> float:
    """Returns the value at `ratio` (0 to 1) of an ordered, non-empty list, by linear interpolation."""
    position = ratio * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def distribution(values: Iterable[float]) -> Distribution:
    """Returns count, mean and percentiles of `values`; all zero if there are none."""
    ordered = sorted(values)
    if not ordered:
        return Distribution()
    return Distribution(
        count=len(ordered),
        mean=sum(ordered) / len(ordered),
        p50=percentile(ordered, 0.50),
        p90=percentile(ordered, 0.90),
        p99=percentile(ordered, 0.99),
        max=ordered[-1],
    )


class ServingStats:
    """The counters and the last `values_max` values of one release's requests. Thread-safe."""

    def __init__(self, values_max: int = VALUES_MAX) -> None:
        self._lock = threading.Lock()
        self._requests = self._failed = self._rejected = self._in_flight = 0
        self._prompt_tokens = self._generated_tokens = 0
        self._ttft_seconds: deque[float] = deque(maxlen=values_max)
        self._tpot_seconds: deque[float] = deque(maxlen=values_max)
        self._itl_seconds: deque[float] = deque(maxlen=values_max)

    def admit(self) -> None:
        """Counts a request that begins."""
        with self._lock:
            self._requests += 1
            self._in_flight += 1

    def reject(self) -> None:
        """Counts a request that was turned away, which is no longer one that began."""
        with self._lock:
            self._requests -= 1
            self._in_flight -= 1
            self._rejected += 1

    def fail(self) -> None:
        """Counts a request that ended in an error."""
        with self._lock:
            self._in_flight -= 1
            self._failed += 1

    def token(self, since_last_seconds: float | None) -> None:
        """Counts a token; None: it is its answer's first, or when the one before it came is not known."""
        with self._lock:
            self._generated_tokens += 1
            if since_last_seconds is not None:
                self._itl_seconds.append(since_last_seconds)

    def end(self, prompt_tokens: int, ttft_seconds: float | None, tpot_seconds: float | None) -> None:
        """Counts a request that ended well."""
        with self._lock:
            self._in_flight -= 1
            self._prompt_tokens += prompt_tokens
            if ttft_seconds is not None:
                self._ttft_seconds.append(ttft_seconds)
            if tpot_seconds is not None:
                self._tpot_seconds.append(tpot_seconds)

    @property
    def in_flight(self) -> int:
        """Returns the requests that are admitted and not over."""
        with self._lock:
            return self._in_flight

    def serving(self) -> ServingSummary:
        """Returns the counters and distributions now."""
        with self._lock:
            ttft, tpot, itl = list(self._ttft_seconds), list(self._tpot_seconds), list(self._itl_seconds)
            counters = ServingSummary(
                requests=self._requests,
                requests_failed=self._failed,
                requests_rejected=self._rejected,
                requests_in_flight=self._in_flight,
                prompt_tokens=self._prompt_tokens,
                generated_tokens=self._generated_tokens,
            )
        return ServingSummary(
            **{
                **vars(counters),
                "time_to_first_token_seconds": distribution(ttft),
                "time_per_output_token_seconds": distribution(tpot),
                "inter_token_latency_seconds": distribution(itl),
            }
        )


class RequestWindow:
    """The times of one request, from its arrival to its end. The first of `end`, `fail` and `reject` counts.

    Mark every token once. `served_by` is reported when it ends, whatever serves by then.
    """

    def __init__(
        self,
        stats: ServingStats,
        energy: EnergyBetween,
        clock: Callable[[], float],
        on_ended: OnEnded = lambda ended: None,
        served_by: ServedBy = ServedBy(),
        operation: Operation = "text_completion",
    ) -> None:
        self._stats, self._energy, self._clock, self._on_ended = stats, energy, clock, on_ended
        self.served_by = served_by
        self._operation = operation
        self._open = True
        self._admitted_seconds = clock()
        self._first_seconds: dict[int, float] = {}  # by answer
        self._last_seconds: dict[int, float] = {}
        self._tokens = 0
        stats.admit()

    def token(self, at_seconds: float | None = None, answer: int = 0) -> None:
        """Marks a token of an answer that came out of the engine at that moment, or now.

        It is never earlier than the answer's last one: two ways to tell the time may differ by microseconds.
        """
        before = self._last_seconds.get(answer)
        now = self._clock() if at_seconds is None else at_seconds
        now = now if before is None else max(now, before)
        self._stats.token(None if before is None else now - before)
        self._first_seconds.setdefault(answer, now)
        self._last_seconds[answer] = now
        self._tokens += 1

    def end(
        self,
        prompt_tokens: int = 0,
        generated_tokens: int | None = None,
        finish_reason: str | None = None,
        *,
        shares_known: bool = True,
    ) -> RequestSummary:
        """Ends a request that ended well or whose client left; then the marks count its tokens. Returns its
        measurements.

        shares_known: Whether each unmarked token came together with a marked one of its answer. If not, it counts
            without a latency, and the request has no TPOT.
        """
        generated = self._tokens if generated_tokens is None else generated_tokens
        self._count_unmarked(generated, together=shares_known and self._tokens > 0)
        summary = self._summary(generated, shares_known)
        if self._open:
            self._open = False
            self._stats.end(
                prompt_tokens,
                summary.time_to_first_token_seconds,
                summary.time_per_output_token_seconds,
            )
            whole = "cancelled" if generated_tokens is None else "completed"
            self._tell(finish_reason or whole, prompt_tokens, generated, summary)
        return summary

    def fail(self) -> None:
        """Ends a request that ended in an error."""
        if self._open:
            self._open = False
            self._stats.fail()
            self._tell("error", 0, self._tokens, self._summary(self._tokens, shares_known=True))

    def reject(self, why: Rejection) -> None:
        """Ends a request that was turned away: nothing was computed for it, and nothing failed."""
        if self._open:
            self._open = False
            self._stats.reject()
            self._tell(why, 0, 0, RequestSummary(None, None, None))

    def _count_unmarked(self, generated: int, *, together: bool) -> None:
        """Counts the other tokens. Those that came together with a marked one, in one chunk, had nothing between."""
        if self._open:
            for _ in range(generated - self._tokens):
                self._stats.token(0.0 if together else None)

    def _tell(
        self, finish_reason: str, prompt_tokens: int, generated_tokens: int, summary: RequestSummary
    ) -> None:
        self._on_ended(
            EndedRequest(
                self.served_by,
                self._operation,
                finish_reason,
                self._clock() - self._admitted_seconds,
                prompt_tokens,
                generated_tokens,
                summary.time_to_first_token_seconds,
                summary.time_per_output_token_seconds,
            )
        )

    def _summary(self, generated: int, shares_known: bool) -> RequestSummary:
        if not self._first_seconds:
            return RequestSummary(None, None, None)
        first_seconds, last_seconds = min(self._first_seconds.values()), max(self._last_seconds.values())
        return RequestSummary(
            time_to_first_token_seconds=first_seconds - self._admitted_seconds,
            time_per_output_token_seconds=self._tpot_seconds(generated) if shares_known else None,
            energy=self._energy(self._admitted_seconds, first_seconds, last_seconds),
        )

    def _tpot_seconds(self, generated: int) -> float | None:
        gaps = generated - len(self._first_seconds)
        decode_seconds = sum(
            self._last_seconds[answer] - first for answer, first in self._first_seconds.items()
        )
        return decode_seconds / gaps if gaps > 0 else None

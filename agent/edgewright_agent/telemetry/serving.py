"""Latency of requests: windows on the monotonic clock of the agent, and their distributions.

A token's time is when the engine's process computed it, where that says so (the ONNX Runtime worker: one clock for all
processes of a machine), else when it arrived from there (vLLM).
TTFT, time to first token: from the whole request being in the agent, before it waits for a slot, to the first token's
time; waiting and reading the prompt included.
ITL, inter-token latency: from one token's time to the next one's. Tokens that vLLM sends in one chunk arrive together:
the gap before the chunk, then 0 for each further one.
TPOT, time per output token: (last - first time) / (tokens - 1) of one request; absent below two tokens.
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
        """Counts a token; None: it is its request's first."""
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
        self._first_seconds: float | None = None
        self._last_seconds: float | None = None
        self._tokens = 0
        stats.admit()

    def token(self, at_seconds: float | None = None) -> None:
        """Marks a token that came out of the engine at that moment, or now."""
        now = self._clock() if at_seconds is None else at_seconds
        self._stats.token(None if self._last_seconds is None else now - self._last_seconds)
        if self._first_seconds is None:
            self._first_seconds = now
        self._last_seconds = now
        self._tokens += 1

    def end(
        self, prompt_tokens: int = 0, generated_tokens: int | None = None, finish_reason: str | None = None
    ) -> RequestSummary:
        """Ends a request that ended well or whose client left; then the marks count its tokens. Returns its
        measurements.
        """
        generated = self._tokens if generated_tokens is None else generated_tokens
        self._count_unmarked(generated)
        summary = self._summary(generated)
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
            self._tell("error", 0, self._tokens, self._summary(self._tokens))

    def reject(self, why: Rejection) -> None:
        """Ends a request that was turned away: nothing was computed for it, and nothing failed."""
        if self._open:
            self._open = False
            self._stats.reject()
            self._tell(why, 0, 0, RequestSummary(None, None, None))

    def _count_unmarked(self, generated: int) -> None:
        """Counts the tokens that came together with a marked one, in one chunk: nothing lay between them."""
        if self._open:
            for _ in range(generated - self._tokens):
                self._stats.token(0.0 if self._tokens else None)

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

    def _summary(self, generated: int) -> RequestSummary:
        if self._first_seconds is None or self._last_seconds is None:
            return RequestSummary(None, None, None)
        decode_seconds = self._last_seconds - self._first_seconds
        tpot_seconds = decode_seconds / (generated - 1) if generated > 1 else None
        return RequestSummary(
            time_to_first_token_seconds=self._first_seconds - self._admitted_seconds,
            time_per_output_token_seconds=tpot_seconds,
            energy=self._energy(self._admitted_seconds, self._first_seconds, self._last_seconds),
        )

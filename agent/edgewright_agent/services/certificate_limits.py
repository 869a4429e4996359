"""Limits how many calls one certificate may have open, and how often it may call.

An observer may only look, so it must not be able to take the board's processor, memory or file handles. Its calls are
few and rare, and all observers together leave room for a deployer. Whoever may deploy may stop the board anyway: a
deployer's limit keeps a program that has gone wrong from doing it by accident.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgewright.errors import BusyError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.services.callers import ClientCertificate
from edgewright_agent.services.roles import CallerRole

OBSERVER_CALLS_MAX = 16  # open at once, of one certificate
OBSERVERS_CALLS_MAX = 64  # of all observers together
DEPLOYER_CALLS_MAX = 128  # of one certificate; 64 callers of a benchmark, and as much again
OBSERVER_CALLS_PER_SECOND = 20.0
OBSERVER_BURST_CALLS = 100.0  # `edgewright status`, `top` and a dashboard make a handful
CERTIFICATES_KEPT = 256


@dataclass
class _Bucket:
    """A token bucket: how many calls may still be made at once, as of a moment."""

    calls: float
    seconds: float


class CallLimits:
    """Counts open calls and meters an observer's rate. Belongs to one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: Counter[str] = Counter()
        self._open_by_observers = 0
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    @contextlib.contextmanager
    def hold(self, certificate: ClientCertificate | None) -> Iterator[None]:
        """Counts one call while it is open. Raises BusyError (`OVERLOADED`) where it would be one too many."""
        name = "" if certificate is None else certificate.sha256
        observes = certificate is not None and CallerRole.DEPLOYER.value not in certificate.roles
        self._check(name, observes=observes)
        self._open[name] += 1
        self._open_by_observers += observes
        try:
            yield
        finally:
            self._open_by_observers -= observes
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]

    def _check(self, name: str, *, observes: bool) -> None:
        most = OBSERVER_CALLS_MAX if observes else DEPLOYER_CALLS_MAX
        if self._open[name] >= most:
            raise _too_many(f"This certificate has {most} calls open, the most it may have. Close one first.")
        if not observes:
            return
        if self._open_by_observers >= OBSERVERS_CALLS_MAX:
            raise _too_many(
                f"Observers have {OBSERVERS_CALLS_MAX} calls open, the most they may have together. Try again later."
            )
        if not self._take(name):
            raise _too_many(
                f"An observer may call {OBSERVER_CALLS_PER_SECOND:g} times per second. Try again in a second."
            )

    def _take(self, name: str) -> bool:
        """Takes a call from the certificate's bucket; returns whether there was one."""
        now = self._clock()
        bucket = self._buckets.setdefault(name, _Bucket(OBSERVER_BURST_CALLS, now))
        self._buckets.move_to_end(name)
        while len(self._buckets) > CERTIFICATES_KEPT:
            self._buckets.popitem(last=False)
        refilled = bucket.calls + (now - bucket.seconds) * OBSERVER_CALLS_PER_SECOND
        bucket.calls, bucket.seconds = min(refilled, OBSERVER_BURST_CALLS), now
        if bucket.calls < 1:
            return False
        bucket.calls -= 1
        return True


def _too_many(message: str) -> BusyError:
    return BusyError(message, Reason.REASON_OVERLOADED)

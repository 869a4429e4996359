"""Clients share the engine's time, and its KV cache, whatever their sequences cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_agent.engine_worker.batching.fair_lock import Turns
from edgewright_agent.engine_worker.batching.fair_shares import FairShares
from edgewright_agent.engine_worker.batching.jobs import UNREAD_MAX, Job
from edgewright_agent.engine_worker.batching.scheduler import Scheduler
from edgewright_agent.engine_worker.model.backend import CachePlace, Logits
from edgewright_agent.engine_worker.model.fake import FakeBackend
from tests.support.worker_runs import SEQUENCES_MAX, generation

COST_MAX = 1.0
STEP_SECONDS = 1.0  # of the model, whatever the number of sequences
CONTEXT_TOKENS = 1024
NARROW, QUARTER, HALF = 128, 256, 512  # tokens of a request, which are its part of the cache


@given(
    costs=st.lists(st.floats(0.01, COST_MAX), min_size=20, max_size=300),
    others=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 300)), max_size=6),
    arrives=st.integers(0, 10),
)
@settings(max_examples=100, deadline=None)
def test_no_client_with_waiting_work_gets_less_than_its_share_minus_one_step(
    costs: list[float], others: list[tuple[int, int]], arrives: int
) -> None:
    shares, charged = FairShares(), dict[str, float]()
    seen: set[str] = set()
    for turn, cost in enumerate(costs):
        present = {f"other {n}" for n, (first, stays) in enumerate(others) if first <= turn < first + stays}
        present |= {"patient"} if turn >= arrives else set()
        if not present:
            continue
        shares.note_present(present)
        payer = shares.in_order(sorted(present))[0]
        shares.charge(payer, cost)
        if turn >= arrives:
            charged[payer] = charged.get(payer, 0.0) + cost
            seen |= present
    assert charged.get("patient", 0.0) >= sum(charged.values()) / max(1, len(seen)) - COST_MAX - 1e-9


def test_who_stays_away_saves_nothing_up_and_what_it_used_too_much_is_not_forgotten() -> None:
    shares = FairShares()

    def charge(client: str, times: int, *others: str) -> None:
        for _ in range(times):
            shares.note_present([client, *others])
            shares.charge(client, 1.0)

    charge("a", 10, "b")
    charge("b", 8)
    shares.note_present(["a", "b", "new"])  # new begins where b was before its last charge
    order = [shares.in_order(some)[0] for some in (["a", "b"], ["a", "new"], ["b", "new"])]
    assert order == ["b", "new", "new"]
    charge("b", 3, "a", "new")
    assert shares.in_order(["b", "a"]) == ["a", "b"]


class _Served:
    """A scheduler whose model takes the time that a clock says, and clients that ask again when they are answered."""

    def __init__(self, folder: Path, wide_seconds: float = STEP_SECONDS) -> None:
        """A step of rows wider than the narrowest takes `wide_seconds`, one of those `STEP_SECONDS`."""
        self.now = 0.0
        self.backend = FakeBackend(folder, CONTEXT_TOKENS)
        self.backend.read = self._read  # type: ignore[method-assign]
        self.backend.step = self._step  # type: ignore[method-assign]
        self.backend.copy = lambda *_: None  # type: ignore[method-assign]
        self.scheduler = Scheduler(self.backend, SEQUENCES_MAX, Turns(), lambda: self.now)
        self.held, self.worked = defaultdict[str, float](float), defaultdict[str, float](float)
        self.tokens = Counter[str]()
        self.jobs: list[Job] = []
        self._wide_seconds = wide_seconds
        self._asked = 0

    def ask(self, client: str, tokens: int) -> None:
        """One request of `tokens` in all, and the next when it has ended."""
        self._asked += 1
        job = generation(self.backend, [self._asked % 256, self._asked // 256], tokens - 2)
        job.client = client
        self.jobs.append(job)
        self.scheduler.add(job)

    def run(self, until_seconds: float) -> None:
        """Serves until the clock says so."""
        while self.now < until_seconds:
            self.turn()

    def turn(self) -> None:
        """One turn of the scheduler."""
        for job, error in self.scheduler.turn():
            assert error is None
            self.tokens[job.client] += len(job.out)
            job.out.clear()
            if job.row is None:
                self.jobs.remove(job)
                self.ask(job.client, len(job.prompt) + job.more_tokens)

    def _read(self, place: CachePlace, past: int, tokens: Sequence[int], adapter: object) -> Logits:
        return np.zeros((len(tokens), FakeBackend.vocab_size), np.float32)

    def _step(
        self, places: Sequence[CachePlace], pasts: Sequence[int], tokens: Sequence[int], adapter: object
    ) -> Logits:
        narrow = places[0].width_tokens == self.backend.layout.share_tokens
        seconds = STEP_SECONDS if narrow else self._wide_seconds
        self.now += seconds
        begun = [(job, job.row.place) for job in self.jobs if job.row is not None]
        for client in {job.client for job, place in begun if place in places}:
            self.worked[client] += seconds
        for job, place in begun:
            self.held[job.client] += seconds * place.width_tokens
        return np.zeros((len(places), FakeBackend.vocab_size), np.float32)


@pytest.mark.parametrize("wide", [[QUARTER], [QUARTER, NARROW]])
@pytest.mark.parametrize("narrow", [1, 4])
@pytest.mark.parametrize("wide_seconds", [0.3, 1.0, 7.0])
def test_the_model_works_for_each_client_its_share_of_the_time(
    tmp_path: Path, wide: list[int], narrow: int, wide_seconds: float
) -> None:
    """Room is no question here: whatever is asked for begins at once."""
    served, until = _Served(tmp_path, wide_seconds), 600.0
    for tokens in wide:
        served.ask("wide", tokens)
    for n in range(narrow):
        served.ask(f"narrow {n}", NARROW)
    served.run(until)
    for client in ("wide", *(f"narrow {n}" for n in range(narrow))):
        assert served.worked[client] >= until / (narrow + 1) - 2 * max(wide_seconds, STEP_SECONDS)


def test_a_wide_sequence_beside_shared_steps_of_six_takes_a_seventh_of_the_time(tmp_path: Path) -> None:
    served = _Served(tmp_path)
    for n in range(6):
        served.ask(f"narrow {n}", NARROW)
    served.ask("wide", QUARTER)
    served.run(2100.0)
    assert 270 <= served.worked["wide"] <= 330
    assert all(served.worked[f"narrow {n}"] >= 1650 for n in range(6))


def test_who_holds_much_of_the_cache_waits_until_the_others_have_held_as_much(tmp_path: Path) -> None:
    """In the order of their coming, six small requests would get little between two that need half of the cache."""
    served, until = _Served(tmp_path), 20_000.0
    for n in range(6):
        served.ask(f"narrow {n}", NARROW)
    served.ask("wide", HALF)
    served.run(until)
    narrow = [served.held[f"narrow {n}"] for n in range(6)]
    assert max(narrow) - min(narrow) <= 0.05 * max(narrow)
    one_request = HALF * HALF * 7 * STEP_SECONDS  # held while it gets a seventh of the time
    assert min(narrow) - one_request <= served.held["wide"] <= max(narrow) + one_request
    assert sum(served.tokens[f"narrow {n}"] for n in range(6)) > 0.8 * 6 * until


def test_one_client_uses_whatever_nobody_else_wants(tmp_path: Path) -> None:
    served = _Served(tmp_path)
    for _ in range(8):
        served.ask("only", NARROW)
    served.run(2000.0)
    assert served.worked["only"] == served.now
    assert served.tokens["only"] > 7.5 * served.now


@pytest.mark.parametrize("reads", [True, False])
def test_small_requests_pass_a_large_one_that_waits_for_an_answer_nobody_reads(
    tmp_path: Path, reads: bool
) -> None:
    """Otherwise two clients, one that reads nothing and one that wants the whole cache, would stop all others."""
    served = _Served(tmp_path)
    served.ask("slow", HALF)
    served.turn()
    (slow,) = served.jobs
    if not reads:
        slow.arrivals.put([None] * UNREAD_MAX)
    served.ask("large", CONTEXT_TOKENS)
    served.ask("small", NARROW)
    for _ in range(5):
        served.turn()
    assert slow.row is not None
    assert [job.row is not None for job in served.jobs[1:]] == [False, not reads]

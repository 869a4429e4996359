from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from edgewright import __version__
from edgewright.errors import InputError, OutsideError, RefusedError
from edgewright_builder.run.optuna_storage import journal_url
from edgewright_builder.run.work_queue import WorkQueue, opened_queue
from tests.support import queue_worker
from tests.support.postgresql import postgresql_server

NAMES = [f"cell-{number}" for number in range(8)]


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgresql_server(tmp_path_factory.mktemp("pg")) as address:
        yield address


@pytest.fixture(params=["journal", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        journal_url(tmp_path / "journal")
        if request.param == "journal"
        else request.getfixturevalue("postgresql")
    )


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[WorkQueue]:
    """The queue of a study on one host."""
    with opened_queue(journal_url(tmp_path / "journal"), "s") as queue:
        yield queue


def worker(storage: str, study: str, silent_seconds: int, folder: Path) -> subprocess.Popen[bytes]:
    arguments = [storage, study, str(silent_seconds), str(folder)]
    return subprocess.Popen([sys.executable, queue_worker.__file__, *arguments])


def test_each_cell_is_run_by_one_of_several_workers(storage: str, tmp_path: Path) -> None:
    with opened_queue(storage, f"several-{tmp_path.name}") as queue:
        queue.put(NAMES)
        workers = [worker(storage, f"several-{tmp_path.name}", 60, tmp_path) for _ in range(3)]
        assert [each.wait(timeout=240) for each in workers] == [0, 0, 0]
        assert Counter((tmp_path / "ran").read_text().split()) == Counter(NAMES)
        assert queue.results().keys() == set(NAMES)


def test_a_killed_workers_cell_is_taken_by_another(storage: str, tmp_path: Path) -> None:
    study = f"killed-{tmp_path.name}"
    with opened_queue(storage, study, silent_seconds=4) as queue:
        queue.put(["slow", *NAMES])
        workers = [worker(storage, study, 4, tmp_path) for _ in range(3)]
        taken = tmp_path / "slow.taken"
        while not (taken.exists() and taken.read_text()):
            time.sleep(0.05)
        victim = int(taken.read_text())
        os.kill(victim, signal.SIGKILL)
        next(each for each in workers if each.pid == victim).wait()
        if storage.startswith("journal"):
            queue.give_back(victim)  # on one host whoever started the worker sees its death
        codes = {each.pid: each.wait(timeout=240) for each in workers}
        assert codes.pop(victim) == -signal.SIGKILL
        assert set(codes.values()) == {0}
        assert Counter((tmp_path / "ran").read_text().split()) == Counter(["slow", *NAMES])
        assert queue.results()["slow"]["pid"] != victim


def test_a_cell_is_queued_once_however_often_it_is_put(queue: WorkQueue) -> None:
    queue.put(NAMES)
    queue.put(NAMES)
    ran: list[str] = []

    def run(name: str) -> dict[str, int]:
        ran.append(name)
        return {}

    queue.work(run)
    queue.put(NAMES)
    queue.work(run)
    assert ran == NAMES


def test_what_two_hosts_put_at_once_is_done_once(queue: WorkQueue) -> None:
    for _ in range(2):  # neither sees what the other puts
        for name in NAMES:
            queue.study.enqueue_trial({}, user_attrs={"item": name})
    ran: list[str] = []

    def run(name: str) -> dict[str, int]:
        ran.append(name)
        return {}

    queue.work(run)
    assert ran == NAMES


def test_a_double_does_not_hide_that_its_item_failed(queue: WorkQueue) -> None:
    for _ in range(2):
        queue.study.enqueue_trial({}, user_attrs={"item": "bad"})

    def fail(_: str) -> dict[str, int]:
        other = threading.Thread(target=lambda: queue.work(lambda _: {}, seconds_max=0.1))
        other.start()  # meanwhile another worker takes the double
        other.join()
        raise RefusedError("It does not fit.")

    queue.work(fail)
    assert queue.faults() == {"bad": "It does not fit."}
    queue.put(["bad"])
    queue.work(lambda _: {"value": 2})
    assert queue.results() == {"bad": {"value": 2}}


def test_an_item_may_be_done_without_a_value(queue: WorkQueue) -> None:
    def prune(_: object, name: str) -> tuple[float, dict[str, int]]:
        if name == "bad":
            raise optuna.TrialPruned
        return 1.0, {}

    for _ in range(2):
        queue.put(["good", "bad"])
        queue.work_trials(prune)
    assert len(queue.study.trials) == 2
    assert queue.results() == {"good": {}}
    assert queue.faults() == {}


def test_a_failed_cell_keeps_its_reason_and_is_tried_again_when_it_is_put_again(
    queue: WorkQueue,
) -> None:
    queue.put(["good", "bad"])

    def fail(name: str) -> dict[str, int]:
        if name == "bad":
            raise RefusedError("It does not fit.")
        return {"value": 1}

    queue.work(fail)
    assert queue.results() == {"good": {"value": 1}}
    assert queue.faults() == {"bad": "It does not fit."}
    queue.put(["good", "bad"])
    queue.work(lambda _: {"value": 2})
    assert queue.faults() == {}
    assert queue.results()["bad"] == {"value": 2}


def test_after_its_time_a_worker_takes_no_new_cell(queue: WorkQueue) -> None:
    queue.put(NAMES)
    queue.work(lambda _: {}, seconds_max=0)
    assert queue.results() == {}
    queue.work(lambda _: {})
    assert queue.results().keys() == set(NAMES)


def test_what_a_killed_study_left_running_is_given_back(tmp_path: Path) -> None:
    url = journal_url(tmp_path / "journal")
    with opened_queue(url, "s") as queue:
        queue.put(["a", "b"])
        queue.study.ask()  # taken by a worker that is no more
    with opened_queue(url, "s") as again:
        again.give_back()
        again.work(lambda name: {"name": name})
        assert list(again.results()) == ["a", "b"]
        again.put(["a", "b"])
        again.work(lambda name: {"name": "twice"})
        assert again.results() == {"a": {"name": "a"}, "b": {"name": "b"}}


def test_a_cell_whose_workers_die_three_times_is_left_as_failed(queue: WorkQueue) -> None:
    queue.put(["a"])
    for _ in range(3):
        queue.study.ask()
        queue.give_back()
    queue.work(lambda _: {})
    assert queue.faults() == {"a": "its workers died"}


def test_a_worker_of_another_version_is_refused(tmp_path: Path) -> None:
    url = journal_url(tmp_path / "journal")
    with opened_queue(url, "s") as queue:
        queue.study.set_user_attr("edgewright", "0.0.1")
    with (
        pytest.raises(InputError, match=f"begun by Edgewright 0.0.1, this is {__version__}"),
        opened_queue(url, "s"),
    ):
        pass


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("redis://host", InputError, "Expected is postgresql://"),
        ("postgresql://user:secret@127.0.0.1:1/x", OutsideError, "can't be used"),
        ("sqlite:////study.db", InputError, "none that workers can share"),
        ("grpc://127.0.0.1:1", OutsideError, "can't be used: [^<]+ Mend that"),
        ("grpc://host:port", InputError, "address is malformed"),
        ("postgresql://user:secret@[host/x", InputError, "address is malformed"),
    ],
)
def test_a_storage_that_can_not_be_used_is_one_sentence_without_its_password(
    url: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised, opened_queue(url, "s"):
        pass
    assert "secret" not in str(raised.value)

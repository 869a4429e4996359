"""Collecting garbage can never remove what a release needs, whatever else is in the store and whoever asks for room."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_agent.store import Space, Store
from edgewright_agent.store.upkeep.garbage import PARTIAL_SECONDS, PROTECTED_SECONDS, choose_garbage
from tests.support.artifacts import make_artifact, put_blob, stage

DIGESTS = st.sampled_from([f"{number:064x}" for number in range(12)])
SIZES = st.dictionaries(DIGESTS, st.integers(0, 1000))
AGES = st.dictionaries(DIGESTS, st.floats(0, 10 * PARTIAL_SECONDS))


@given(SIZES, SIZES, st.sets(DIGESTS), AGES, AGES)
def test_the_choice_leaves_what_is_needed_asked_about_or_being_written(
    blobs: dict[str, int],
    uploads: dict[str, int],
    needed: set[str],
    idle: dict[str, float],
    upload_idle: dict[str, float],
) -> None:
    garbage = choose_garbage(
        blobs, uploads, needed=needed, idle_seconds=idle, upload_idle_seconds=upload_idle
    )
    assert not set(garbage.blobs) & needed
    assert all(idle.get(sha256, PROTECTED_SECONDS) >= PROTECTED_SECONDS for sha256 in garbage.blobs)
    assert all(upload_idle.get(sha256, 0.0) >= PARTIAL_SECONDS for sha256 in garbage.uploads)
    kept = set(blobs) - set(garbage.blobs) - needed
    assert garbage.kept_recent_bytes == sum(blobs[sha256] for sha256 in kept)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 5)),
        st.tuples(st.just("stage"), st.sets(st.integers(0, 5), min_size=1, max_size=3)),
        st.tuples(st.just("delete"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.sampled_from([60.0, 2 * PROTECTED_SECONDS])),
        st.tuples(st.just("collect"), st.booleans()),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=14,
)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_after_any_history_every_release_has_every_byte(steps: list[tuple[str, object]]) -> None:
    seconds = [0.0]
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder), seconds)
        for what, value in steps:
            if what == "restart":
                store.close()
                store = open_store(Path(folder), seconds)
            else:
                do(store, seconds, what, value)
            for release in store.releases().values():
                for file in release.manifest.files:
                    assert (release.tree / file.path).read_bytes() == content_of(file.path)
                    assert file.sha256 in store.blob_bytes()
        store.close()


def open_store(root: Path, seconds: list[float]) -> Store:
    return Store(root, space=Space(reserve_bytes=0), clock=lambda: seconds[0])


def content_of(path: str) -> bytes:
    return path.encode() * 50


def do(store: Store, seconds: list[float], what: str, value: object) -> None:
    match what, value:
        case "put", int(number):
            put_blob(store, content_of(f"engine/{number}.bin"))
        case "stage", set(numbers):
            tree = {f"engine/{number}.bin": content_of(f"engine/{number}.bin") for number in numbers}
            stage(store, make_artifact(tree))
        case "delete", int(number):
            for digest in sorted(store.releases())[number : number + 1]:
                store.delete_release(digest)
        case "wait", float(idle_seconds):
            seconds[0] += idle_seconds
        case _:
            store.collect(quarantine=bool(value))

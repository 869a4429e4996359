"""Things of the wrong kind in every place of the store: the agent starts, puts them in quarantine, and says so."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc.aio
import pytest

from edgewright.v1 import deployment_pb2, deployment_pb2_grpc
from edgewright_agent.server import RunningAgent, run_agent
from edgewright_agent.store import Space, Store, scrub
from edgewright_agent.store.files.layout import Layout
from edgewright_agent.trust import Trust
from tests.agent.conftest import settings_for
from tests.support.artifacts import TIMEOUT_SECONDS, activate, make_artifact, push, stage
from tests.support.scripted_engine import Script, only_fake
from tests.support.trust_documents import document

ARTIFACT = make_artifact()
BLOB = ARTIFACT.manifest.files[0].sha256


def make_folder(path: Path) -> None:
    (path / "within").mkdir(parents=True)
    (path / "within/file").write_bytes(b"somebody's")


def make_file(path: Path) -> None:
    path.write_bytes(b"somebody's")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def make_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def make_link_to_a_folder(path: Path) -> None:
    elsewhere = next(parent for parent in path.parents if parent.name == "store").with_name("elsewhere")
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "precious").write_bytes(b"not the store's")
    path.symlink_to(elsewhere)


Make = Callable[[Path], None]
WRONG_FOR_A_FILE: tuple[Make, ...] = (
    make_folder, make_dangling_link, make_link_to_itself, make_pipe, make_socket,
)  # fmt: skip
WRONG_FOR_A_FOLDER: tuple[Make, ...] = (
    make_file, make_dangling_link, make_link_to_itself, make_pipe, make_socket,
)  # fmt: skip
STRANGE: tuple[Make, ...] = (*WRONG_FOR_A_FILE, make_file, make_link_to_a_folder)
FILES = (
    "VERSION", "lock", "state.json", "state.json.prev", "scrub.json", "scrub.json.prev", "trust/clock",
    "trust/chain.json", "trust/00000001.json", f"blobs/sha256/{BLOB[:2]}/{BLOB}", f"partial/{BLOB}.data",
    f"partial/{BLOB}.meta", "telemetry/00000000000000aa.ring", f"releases/{ARTIFACT.digest}/manifest.json",
    f"releases/{ARTIFACT.digest}/manifest.sig", f"releases/{ARTIFACT.digest}/SHA256SUMS",
    f"releases/{ARTIFACT.digest}/tree/engine/model.bin",
)  # fmt: skip
FOLDERS = (
    "blobs", "blobs/sha256", f"blobs/sha256/{BLOB[:2]}", "partial", "releases", f"releases/{ARTIFACT.digest}",
    f"releases/{ARTIFACT.digest}/tree", "quarantine", "telemetry", "trust",
)  # fmt: skip
PLACES_OF_NOBODY = (
    "blobs/strange", "blobs/sha256/strange", f"blobs/sha256/{BLOB[:2]}/strange", "partial/strange.txt",
    "releases/strange", "telemetry/strange.ring", "trust/strange", "quarantine/strange",
)  # fmt: skip
CASES = [
    *((place, make) for place in FILES for make in WRONG_FOR_A_FILE),
    *((place, make) for place in FOLDERS for make in WRONG_FOR_A_FOLDER),
    *((place, make) for place in PLACES_OF_NOBODY for make in STRANGE),
]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a release and a record of telemetry."""
    root = tmp_path_factory.mktemp("used") / "store"
    store = Store(root, space=Space(reserve_bytes=0))
    stage(store, ARTIFACT)
    store.state.write({"phase": "idle", "outcome": "none", "denied": [], "active": None})
    store.state.write({"phase": "idle", "outcome": "none", "denied": [], "message": "later"})
    store.close()
    (root / "telemetry").mkdir()
    return root


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory: the store syncs often."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    yield folder
    shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def started(root: Path) -> AsyncIterator[tuple[RunningAgent, grpc.aio.Channel]]:
    trust = document(1)
    settings = settings_for(root, trust=trust, trusted_keys=())
    async with (
        run_agent(settings, available_engines=only_fake, start_engine=Script().start) as agent,
        grpc.aio.insecure_channel(str(agent.address)) as channel,
    ):
        yield agent, channel


def broken(used: Path, root: Path, place: str, make: Make) -> set[Path]:
    """The store with such a thing in this place; what there is beside the store."""
    shutil.copytree(used, root)
    path = root / place
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    return set(root.with_name("elsewhere").rglob("*"))


def name_of(value: object) -> str:
    return getattr(value, "__name__", str(value)[:40])


@pytest.mark.parametrize(("place", "make"), CASES, ids=name_of)
def test_the_store_opens_and_takes_its_release_again(
    used: Path, scratch: Path, place: str, make: Make
) -> None:
    root = scratch / "store"
    beside = broken(used, root, place, make)
    store = Store(root, space=Space(reserve_bytes=0))
    Trust(document(1), store.layout.trust)
    assert store.quarantined_files() >= (place != "lock")
    stage(store, ARTIFACT)
    store.verify_release(store.release(ARTIFACT.digest))
    assert not list(scrub(store))[-1].damaged
    store.state.write({"phase": "idle", "outcome": "none", "denied": []})
    store.collect(quarantine=True)
    store.close()
    assert set((scratch / "elsewhere").rglob("*")) == beside
    again = Store(root)  # and it is mended for good
    assert again.quarantined_files() == 0
    assert ARTIFACT.digest in again.releases()
    again.close()


@pytest.mark.parametrize("place", [*FILES, *FOLDERS, *PLACES_OF_NOBODY], ids=name_of)
async def test_the_agent_starts_says_so_and_serves(used: Path, scratch: Path, place: str) -> None:
    root = scratch / "store"
    broken(used, root, place, make_pipe)
    async with started(root) as (agent, channel):
        stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
        board = await stub.GetDevice(deployment_pb2.GetDeviceRequest(), timeout=TIMEOUT_SECONDS)
        assert board.quarantined_files >= (place != "lock")
        steps = await activate(channel, await push(channel, ARTIFACT))
        assert steps[-1].outcome == deployment_pb2.OUTCOME_COMMITTED
        assert agent.observation.recorder.last_sequence


async def test_a_state_that_is_a_folder_is_lost_and_not_the_state_of_a_new_board(
    used: Path, scratch: Path
) -> None:
    root = scratch / "store"
    shutil.copytree(used, root)
    for path in (Layout(root).state, Layout(root).state_previous):
        path.unlink()
        make_folder(path)
    async with started(root) as (agent, _):
        assert agent.deployer.state.phase.value == "safe"
        assert "can't be read" in agent.deployer.state.message


async def test_a_trust_document_that_is_a_folder_is_damaged_and_no_older_one_counts(
    used: Path, scratch: Path
) -> None:
    root = scratch / "store"
    shutil.copytree(used, root)
    (root / "trust/00000007.json").mkdir(parents=True)
    async with started(root) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError, match="damaged"):
            await push(channel, make_artifact(version="2.0"))


async def test_a_disk_that_gives_telemetry_no_folder_does_not_stop_the_start(
    used: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = scratch / "store"
    shutil.copytree(used, root)
    (root / "telemetry").rmdir()
    mkdir = Path.mkdir

    def full(path: Path, *args: object, **options: object) -> None:
        if path.name == "telemetry":
            raise OSError(28, "No space left on device", str(path))
        mkdir(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", full)
    async with started(root) as (_, channel):
        assert await push(channel, ARTIFACT)

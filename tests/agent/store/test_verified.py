"""What spares a blob a second hash, and what does not: a signed list of its chunks, and having just been written."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgewright.durable import FileSystem
from edgewright.errors import InputError, OutsideError
from edgewright.manifest import Manifest
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.store import Blob, Space, Store
from edgewright_agent.store.blobs.verified import FRESH_SECONDS
from tests.agent.store.test_uploads import flip_a_bit
from tests.support.artifacts import TestArtifact, make_artifact, make_blob, put_blob, sha256

DATA = random.Random(3).randbytes(10 * 1024)
LIE = sha256(b"something else")


class CountingReads(FileSystem):
    """Which files were read as a whole."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def sha256_of(self, path: Path) -> str:
        self.read.append(path.name)
        return super().sha256_of(path)


def one_file(data: bytes = DATA) -> TestArtifact:
    return make_artifact({"engine/model.bin": data}, chunk_bytes=1024)


def lying() -> tuple[Manifest, Blob]:
    """A manifest that says DATA's chunks make another blob, and that blob."""
    manifest = one_file().manifest
    file = manifest.files[0].model_copy(update={"sha256": LIE})
    return manifest.model_copy(update={"files": (file,)}), Blob(LIE, len(DATA), make_blob(DATA).chunks)


def send(store: Store, blob: Blob) -> None:
    upload = store.begin_upload(blob)
    assert upload is not None
    for index, offset in enumerate(blob.offsets):
        upload.write_chunk(index, DATA[offset : offset + blob.chunks[index][1]])
    store.end_upload(upload, complete=True)


def test_signed_chunks_make_the_blob_the_signer_said_and_what_is_loaded_is_hashed_all_the_same(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path, space=Space(reserve_bytes=0))
    manifest, blob = lying()
    store.learn_chunkings(manifest)
    send(store, blob)
    assert store.missing([blob]) == []
    with pytest.raises(OutsideError) as error:
        store.verify(manifest)  # as before each activation
    assert error.value.reason == Reason.REASON_STORE_CORRUPT


def test_without_a_signature_the_whole_blob_is_hashed(tmp_path: Path) -> None:
    store = Store(tmp_path, space=Space(reserve_bytes=0))
    with pytest.raises(InputError) as error:
        send(store, lying()[1])
    assert error.value.reason == Reason.REASON_DIGEST_MISMATCH


def test_a_signature_vouches_for_its_own_cut_alone(tmp_path: Path) -> None:
    store = Store(tmp_path, space=Space(reserve_bytes=0))
    store.learn_chunkings(lying()[0])
    other_cut = Blob(LIE, len(DATA), make_blob(DATA, 2048).chunks)
    with pytest.raises(InputError) as error:
        send(store, other_cut)
    assert error.value.reason == Reason.REASON_DIGEST_MISMATCH


def test_what_was_published_just_now_is_not_read_back_to_be_staged(tmp_path: Path) -> None:
    fs, artifact = CountingReads(), one_file()
    store = Store(tmp_path, space=Space(reserve_bytes=0), fs=fs)
    put_blob(store, DATA)
    fs.read.clear()
    store.stage(artifact.manifest, artifact.manifest_bytes, artifact.envelope)
    assert fs.read == []
    store.verify(artifact.manifest)
    assert fs.read == [artifact.blobs[0].sha256]


def test_what_was_touched_since_is_read_back(tmp_path: Path) -> None:
    store, artifact = Store(tmp_path, space=Space(reserve_bytes=0)), one_file()
    blob = put_blob(store, DATA)
    flip_a_bit(store.layout.blob(blob.sha256), 100)
    with pytest.raises(OutsideError) as error:
        store.stage(artifact.manifest, artifact.manifest_bytes, artifact.envelope)
    assert error.value.reason == Reason.REASON_STORE_CORRUPT


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_published_long_ago_or_by_another_process_is_read_back(
    tmp_path: Path, restarted: bool
) -> None:
    seconds, fs, artifact = [0.0], CountingReads(), one_file()
    store = Store(tmp_path, space=Space(reserve_bytes=0), fs=fs, clock=lambda: seconds[0])
    put_blob(store, DATA)
    if restarted:
        store.close()
        store = Store(tmp_path, space=Space(reserve_bytes=0), fs=fs, clock=lambda: seconds[0])
    else:
        seconds[0] = FRESH_SECONDS
    store.stage(artifact.manifest, artifact.manifest_bytes, artifact.envelope)
    assert fs.read == [artifact.blobs[0].sha256]

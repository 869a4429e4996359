"""Mirrors from the host's side: what is exported, what is signed, and a push that sends nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from edgewright.address import Address
from edgewright.errors import InputError
from edgewright_agent.server import run_agent
from edgewright_builder.artifact import mirror
from edgewright_builder.artifact.artifact import open_artifact, verify_artifact
from edgewright_builder.cli.main import app
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.keys.credentials import create_credentials
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.push.push import push
from edgewright_builder.push.transfer import TransferListener
from edgewright_builder.python_api.artifacts import add_mirrors
from tests.agent.conftest import settings_for
from tests.support.built_artifacts import make_artifact
from tests.support.scripted_engine import Script, only_fake

CONTENTS = {"engine/model.bin": bytes(range(256)) * 8000, "tokenizer/tokenizer.json": b"{}"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    create_credentials(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def artifact(tmp_path: Path, keys: Path) -> Path:
    key: Ed25519PrivateKey = load_signing_key(keys / "release.key")
    profiles = ("raspberry-pi-5-8gb",)
    return make_artifact(tmp_path / "artifact", CONTENTS, key, device_profiles=profiles).folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Tests print nothing."""


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Python's own static server: it knows no ranges."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["mirror", *map(str, arguments)])


def output(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.exception
    return str(result.stdout)


@contextlib.asynccontextmanager
async def board(tmp_path: Path, artifact: Path, keys: Path) -> AsyncIterator[Address]:
    public_key = load_signing_key(keys / "release.key").public_key()
    settings = settings_for(tmp_path / "store", trusted_keys=(public_key,))
    async with run_agent(settings, available_engines=only_fake, start_engine=Script().start) as agent:
        yield agent.address


async def pushed(address: Address, artifact: Path) -> tuple[int, list[str]]:
    """Bytes the host sent, and what the user was told."""
    notes: list[str] = []
    async with DeviceClient(address, None) as client:
        result = await push(client, artifact, None, listener=TransferListener(note=notes.append))
    assert result.verdict is not None
    assert result.verdict.committed
    return result.sent_bytes, notes


async def test_a_push_sends_nothing_that_a_static_server_has(
    tmp_path: Path, artifact: Path, keys: Path
) -> None:
    output("export", artifact, tmp_path / "www")
    with web_server(tmp_path / "www") as url:
        output("add", artifact, url, "--credentials", keys)
        async with board(tmp_path, artifact, keys) as address:
            sent_bytes, notes = await pushed(address, artifact)
    assert sent_bytes == 0
    assert any("The board fetched 2.0 MB" in note for note in notes)


async def test_what_the_mirror_lacks_the_host_sends(tmp_path: Path, artifact: Path, keys: Path) -> None:
    output("export", artifact, tmp_path / "www")
    weights = hashlib.sha256(CONTENTS["engine/model.bin"]).hexdigest()
    (tmp_path / "www" / "blobs" / "sha256" / weights).unlink()
    with web_server(tmp_path / "www") as url:
        output("add", artifact, url, "--credentials", keys)
        async with board(tmp_path, artifact, keys) as address:
            sent_bytes, notes = await pushed(address, artifact)
    assert sent_bytes == len(CONTENTS["engine/model.bin"])
    assert any("404" in note for note in notes)


@pytest.mark.parametrize(
    "index",
    ["", "[" * 100_000, '{"manifests": ["x"]}', '{"manifests": {"a": 1}}', '{"manifests": [null]}', "[]"],
)
def test_a_folder_with_another_index_is_refused_and_left_as_it_is(
    tmp_path: Path, artifact: Path, index: str
) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "index.json").write_text(index)
    assert "is no index of an OCI image layout" in str(invoke("export", artifact, tmp_path / "www").exception)
    assert [path.name for path in (tmp_path / "www").iterdir()] == ["index.json"]


def test_a_base_that_gets_a_mirror_says_what_becomes_of_its_adapters(tmp_path: Path, keys: Path) -> None:
    slots = {"modules": ["q_proj"], "rank": 8}
    key: Ed25519PrivateKey = load_signing_key(keys / "release.key")
    base = make_artifact(tmp_path / "base", CONTENTS, key, adapter_slots=slots)
    add = ("add", base.folder, "https://downloads.example.org/slm", "--credentials", keys)
    assert f"Adapters built on {base.digest[:12]} do not serve on it" in output(*add)
    assert "Adapters" not in output(*add)  # the same mirror again: the same artifact


def test_the_export_is_an_oci_image_layout(tmp_path: Path, artifact: Path) -> None:
    assert "2 files" in output("export", artifact, tmp_path / "www")
    index = json.loads((tmp_path / "www" / "index.json").read_bytes())
    assert json.loads((tmp_path / "www" / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = index["manifests"]
    blobs = tmp_path / "www" / "blobs" / "sha256"
    document = (blobs / entry["digest"].removeprefix("sha256:")).read_bytes()
    assert len(document) == entry["size"]
    listed = json.loads(document)
    for layer in (listed["config"], *listed["layers"]):
        data = (blobs / layer["digest"].removeprefix("sha256:")).read_bytes()
        assert (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)) == (layer["digest"], layer["size"])
    titles = [layer["annotations"]["org.opencontainers.image.title"] for layer in listed["layers"]]
    assert titles == sorted(CONTENTS)


def test_a_folder_holds_many_artifacts_and_writes_each_file_once(
    tmp_path: Path, artifact: Path, keys: Path
) -> None:
    output("export", artifact, tmp_path / "www")
    assert "0 files, 0 B" in output("export", artifact, tmp_path / "www")
    key = load_signing_key(keys / "release.key")
    second = make_artifact(tmp_path / "second", {**CONTENTS, "more.bin": b"m"}, key, version="2.0")
    assert "1 files" in output("export", second.folder, tmp_path / "www")
    assert len(json.loads((tmp_path / "www" / "index.json").read_bytes())["manifests"]) == 2
    (tmp_path / "www" / "index.json").write_text("[]")
    assert "no index of an OCI image layout" in str(invoke("export", artifact, tmp_path / "www").exception)


def test_naming_a_mirror_signs_again_and_changes_no_file(artifact: Path, keys: Path) -> None:
    before = open_artifact(artifact)
    says = output(
        "add", artifact, "https://cdn.example/models", "oci://ghcr.io/me/tiny", "--credentials", keys
    )
    after = verify_artifact(artifact, load_signing_key(keys / "release.key").public_key())
    assert after.digest[:12] in says
    assert after.digest != before.digest
    assert after.manifest.files == before.manifest.files
    assert [each.blob_url("ab") for each in after.manifest.mirrors] == [
        "https://cdn.example/models/blobs/sha256/ab",
        "https://ghcr.io/v2/me/tiny/blobs/sha256:ab",
    ]
    output("add", artifact, "oci://localhost:5000/tiny", "--replace", "--credentials", keys)
    (only,) = open_artifact(artifact).manifest.mirrors
    assert only.url == "http://localhost:5000/v2/tiny"


@pytest.mark.parametrize("registry", ["localhost:5000", "127.0.0.1:5000", "127.0.0.2", "[::1]:5000"])
def test_a_registry_on_this_machine_is_called_without_tls(registry: str) -> None:
    assert mirror.parse_mirror(f"oci://{registry}/tiny").url == f"http://{registry}/v2/tiny"
    assert mirror.parse_mirror("oci://localhost.example/tiny").url == "https://localhost.example/v2/tiny"


@pytest.mark.parametrize("inside", ["", "engine", "blobs"])
def test_an_artifact_is_not_exported_into_itself(artifact: Path, inside: str) -> None:
    before = sorted(artifact.rglob("*"))
    with pytest.raises(InputError, match="lies in the artifact itself"):
        mirror.export(artifact, artifact / inside)
    assert sorted(artifact.rglob("*")) == before


def test_more_mirrors_than_a_manifest_holds_are_refused(artifact: Path, keys: Path) -> None:
    add_mirrors(artifact, [f"https://m{number}.example" for number in range(7)], credentials=keys)
    with pytest.raises(InputError, match="would name 9 mirrors, and at most 8 are read"):
        add_mirrors(artifact, ["https://x.example", "https://y.example"], credentials=keys)
    assert len(open_artifact(artifact).manifest.mirrors) == 7


@pytest.mark.parametrize("url", ["cdn.example/models", "https://user:pw@host/x", "oci://", "s3://bucket", ""])
def test_what_is_no_mirror_is_named(url: str) -> None:
    with pytest.raises(InputError, match="is no mirror"):
        mirror.parse_mirror(url)


async def test_two_pushes_at_once_from_a_mirror_both_end_well(
    tmp_path: Path, artifact: Path, keys: Path
) -> None:
    output("export", artifact, tmp_path / "www")
    with web_server(tmp_path / "www") as url:
        output("add", artifact, url, "--credentials", keys)
        async with board(tmp_path, artifact, keys) as address, DeviceClient(address, None) as client:
            calls = [push(client, artifact, None, activate=False) for _ in range(2)]
            results = await asyncio.gather(*calls)
            assert {result.release for result in results} == {open_artifact(artifact).digest}
            assert len(await client.list_releases()) == 1

"""What is wrong between host and board is said in one sentence, and neither side keeps half of anything."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.keys.key_files import load_signing_key
from tests.end_to_end.bad_input.saying import (
    INPUT,
    OUTSIDE,
    assert_says,
)
from tests.support.built_artifacts import make_artifact
from tests.support.tiny_build import edgewright

MIB = 1024 * 1024


@contextlib.contextmanager
def agent(store: Path, credentials: Path, *more: str) -> Iterator[str]:
    """`edgewright-agent serve` over mutual TLS, and its address."""
    words = [
        str(Path(sys.executable).with_name("edgewright-agent")), "serve", "--profile", "this-host",
        "--store", str(store), "--listen", "127.0.0.1:0", "--trust", str(credentials / "release.pub"),
        "--tls-cert", str(credentials / "agent.pem"), "--tls-key", str(credentials / "agent.key"),
        "--tls-ca", str(credentials / "ca.pem"), *more,
    ]  # fmt: skip
    environment = {**os.environ, "EDGEWRIGHT_FAKE_ENGINE": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def credentials(recipe: Path) -> Path:
    return recipe.parent / "credentials"


@pytest.fixture
def artifact(credentials: Path, tmp_path: Path) -> Artifact:
    key = load_signing_key(credentials / "release.key")
    return make_artifact(tmp_path / "artifact", {"engine/model.bin": bytes(2 * MIB)}, key)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody who listens and is to be left alone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def test_a_port_in_use_is_named_and_no_store_is_made(tmp_path: Path, listener: socket.socket) -> None:
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    words = ["serve", "--profile", "this-host", "--store", str(tmp_path / "store"), "--listen", address]
    program = str(Path(sys.executable).with_name("edgewright-agent"))
    done = subprocess.run([program, *words, "--insecure"], capture_output=True, text=True, check=False)
    assert_says(done, INPUT, f"{address} can't be listened on: Address already in use", "--listen")
    assert not (tmp_path / "store").exists()


def test_an_agent_that_is_not_there_is_named(credentials: Path, listener: socket.socket) -> None:
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    done = edgewright("status", address, "--credentials", str(credentials))
    assert_says(done, OUTSIDE, f"No agent can be reached at {address} (Connection refused)", "check")


def test_credentials_of_another_authority_reach_nothing_on_either_side(
    credentials: Path, tmp_path: Path
) -> None:
    assert edgewright("keys", "create", str(tmp_path / "others")).returncode == 0
    mixed = tmp_path / "mixed"  # our authority, and a certificate that it never signed
    shutil.copytree(tmp_path / "others", mixed)
    shutil.copyfile(credentials / "ca.pem", mixed / "ca.pem")
    with agent(tmp_path / "store", credentials) as address:
        distrusted = edgewright("status", address, "--credentials", str(tmp_path / "others"))
        refused = edgewright("status", address, "--credentials", str(mixed))
    assert_says(distrusted, OUTSIDE, f"certificate of {address} is not trusted", "signed by our ca.pem")
    assert_says(refused, OUTSIDE, f"{address} refuses the client certificate", "credentials")


@pytest.mark.parametrize("name", ["engine/model.bin", "manifest.json"])
def test_an_altered_artifact_is_refused_before_anything_is_sent(
    artifact: Artifact, credentials: Path, listener: socket.socket, name: str
) -> None:
    altered = artifact.folder / name
    content = altered.read_bytes()
    altered.write_bytes(
        content.replace(b'"1.0"', b'"1.1"') if name == "manifest.json" else b"!" + content[1:]
    )
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    done = edgewright("push", str(artifact.folder), address, "--credentials", str(credentials))
    assert_says(
        done, INPUT, "manifest" if name == "manifest.json" else f"{altered} is not the file that was signed"
    )
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_full_store_refuses_the_release_and_keeps_nothing_of_it(
    artifact: Artifact, credentials: Path, tmp_path: Path
) -> None:
    with agent(tmp_path / "store", credentials, "--store-quota", "1MiB") as address:
        done = edgewright("push", str(artifact.folder), address, "--credentials", str(credentials))
        releases = edgewright("releases", address, "--credentials", str(credentials), "--json")
    assert_says(done, OUTSIDE, "The store is full", "needs 2.0 MiB", "1.0 MiB are free")
    assert json.loads(releases.stdout)["releases"] == []
    assert not [
        path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.stat().st_size > MIB
    ]

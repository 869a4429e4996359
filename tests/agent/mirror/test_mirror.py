"""Blobs from a mirror: what a board takes, what it refuses, and that neither costs it more than it should."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgewright.errors import OutsideError
from edgewright.manifest import Manifest, Mirror
from edgewright_agent.mirror import FetchProgress, MirrorLimits, fetch_missing
from edgewright_agent.store import Space, Store, Upload
from tests.support.artifacts import make_artifact, put_blob
from tests.support.mirror_server import (
    Answer,
    MirrorServer,
    Request,
    dripping_head,
    endless,
    saying,
    silent,
    trickling,
)

WEIGHTS = bytes(range(256)) * 200  # 50 chunks of 1 KiB
LIMITS = MirrorLimits(
    connect_seconds=5, silence_seconds=0.5, window_seconds=0.2, bytes_per_second_min=100_000, attempts_max=2
)


@pytest.fixture
async def server() -> AsyncIterator[MirrorServer]:
    mirror = MirrorServer()
    mirror.add(WEIGHTS)
    async with mirror.running():
        yield mirror


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = Store(tmp_path / "store", space=Space(reserve_bytes=0))
    yield opened
    opened.close()


def manifest(*mirrors: MirrorServer, layout: str = "oci-layout", **tree: bytes) -> Manifest:
    path = "" if layout == "oci-layout" else "/v2/tiny"
    named = [{"layout": layout, "url": each.address + path} for each in mirrors]
    return make_artifact(tree or {"model.bin": WEIGHTS}, chunk_bytes=1024, mirrors=named).manifest


async def fetch(store: Store, wanted: Manifest, limits: MirrorLimits = LIMITS) -> list[FetchProgress]:
    return [step async for step in fetch_missing(store, wanted, limits)]


def has(store: Store, wanted: Manifest) -> bool:
    return not store.absent_blobs(wanted)


@pytest.mark.parametrize("layout", ["oci-layout", "oci-registry"])
async def test_a_blob_comes_from_a_mirror_by_its_digest(
    store: Store, server: MirrorServer, layout: str
) -> None:
    wanted = manifest(server, layout=layout)
    steps = await fetch(store, wanted)
    assert has(store, wanted)
    assert (steps[-1].fetched_bytes, steps[-1].missing_bytes) == (len(WEIGHTS), 0)
    assert store.traffic.bytes_by_way == {"full": 0, "delta": 0, "mirror": len(WEIGHTS), "dedup": 0}
    separator = "/" if layout == "oci-layout" else ":"
    assert server.requests[0].path.endswith(f"/blobs/sha256{separator}{wanted.files[0].sha256}")
    assert await fetch(store, wanted) == [FetchProgress(0, 0)]
    assert len(server.requests) == 1  # what is here is not asked for


async def test_a_blob_without_bytes_needs_no_request(store: Store, server: MirrorServer) -> None:
    wanted = manifest(server, empty=b"")
    await fetch(store, wanted)
    assert has(store, wanted)
    assert server.requests == []


async def test_a_connection_that_breaks_is_resumed_where_it_stopped(
    store: Store, server: MirrorServer
) -> None:
    server.answers = [server.broken_after(10_500), server.broken_after(20_300)]
    wanted = manifest(server)
    await fetch(store, wanted)
    assert has(store, wanted)
    assert [each.headers["range"] for each in server.requests] == [
        "bytes=0-51199",
        "bytes=10240-51199",
        "bytes=29696-51199",
    ]


async def test_only_the_missing_ranges_are_asked_for(store: Store, server: MirrorServer) -> None:
    put_blob(store, WEIGHTS[10 * 1024 : 20 * 1024])
    wanted = manifest(server)
    other = WEIGHTS[:5000] + b"!" + WEIGHTS[5001:]
    server.add(other)
    await fetch(store, wanted)
    before = server.sent_bytes
    changed = manifest(server, changed=other)
    await fetch(store, changed)
    assert has(store, changed)
    assert server.sent_bytes - before == 1024  # one chunk differs


async def test_a_server_without_ranges_is_read_once(store: Store, server: MirrorServer) -> None:
    server.knows_ranges = False
    server.answers = [server.broken_after(10_500)]
    wanted = manifest(server)
    await fetch(store, wanted)
    assert has(store, wanted)
    assert len(server.requests) == 2


def hostile(server: MirrorServer) -> dict[str, Answer]:
    span = {"Content-Range": "bytes 0-51199/51200"}
    return {
        "not found": saying(404),
        "forbidden": saying(403),
        "one wrong bit": server.altered(len(WEIGHTS) - 1),
        "an endless body": endless,
        "silence": silent,
        "a trickle": trickling,
        "always cut off at once": server.broken_after(0),
        "always cut off in the first chunk": server.broken_after(1000),
        "a length beyond the blob": saying(200, {"Content-Length": "999999999999"}),
        "another range": saying(206, {"Content-Range": "bytes 5-51199/51200"}, WEIGHTS[5:]),
        "a blob of another size": saying(206, {"Content-Range": "bytes 0-51199/99999"}, WEIGHTS),
        "a range without a name": saying(206, {}, WEIGHTS),
        "compressed": saying(206, {**span, "Content-Encoding": "gzip"}, WEIGHTS),
        "redirects in a circle": saying(307, {"Location": "/blobs/again"}),
        "a redirect to nowhere": saying(307, {"Location": "http://[bad"}),
        "a redirect to a file": saying(307, {"Location": "file:///etc/passwd"}),
        "a redirect with an endless body": saying(307, {"Location": "/a", "Content-Length": "99999999999"}),
        "a login": saying(401, {"WWW-Authenticate": 'Basic realm="x"'}),
        "no HTTP at all": saying(999, {"Content-Length": "minus one"}),
        "a page of HTML": saying(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>"),
        "a broken server": saying(503),
    }


@pytest.mark.parametrize("what", sorted(hostile(MirrorServer())))
async def test_a_bad_mirror_costs_nothing_and_the_next_one_is_asked(
    store: Store, server: MirrorServer, what: str
) -> None:
    bad = MirrorServer(dict(server.blobs))
    bad.always = hostile(bad)[what]
    async with bad.running():
        wanted = manifest(bad, server)
        steps = await asyncio.wait_for(fetch(store, wanted), 30)
        assert has(store, wanted)
        assert steps[-1].missing_bytes == 0
        assert len(bad.requests) <= 8
        assert any(bad.address in step.note for step in steps), steps


@pytest.mark.parametrize("what", ["not found", "one wrong bit", "an endless body", "silence"])
async def test_what_no_mirror_has_stays_missing_for_the_host_to_send(
    store: Store, server: MirrorServer, what: str
) -> None:
    server.always = hostile(server)[what]
    wanted = manifest(server)
    steps = await asyncio.wait_for(fetch(store, wanted), 30)
    assert not has(store, wanted)
    assert steps[-1].missing_bytes == len(WEIGHTS) - steps[-1].fetched_bytes
    put_blob(store, WEIGHTS)
    assert has(store, wanted)


async def test_an_unreachable_mirror_is_passed_over(store: Store, server: MirrorServer) -> None:
    gone = MirrorServer()
    async with gone.running():
        pass
    wanted = manifest(gone, server)
    await fetch(store, wanted)
    assert has(store, wanted)


async def test_a_redirect_to_a_cdn_is_followed(store: Store, server: MirrorServer) -> None:
    async with MirrorServer(dict(server.blobs)).running() as cdn:
        server.always = saying(307, {"Location": f"{cdn}/cdn/{manifest().files[0].sha256}"})
        wanted = manifest(server)
        await fetch(store, wanted)
    assert has(store, wanted)


async def test_a_public_registry_gives_a_token_to_anybody(store: Store, server: MirrorServer) -> None:
    async def registry(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path.startswith("/token?service=reg&scope=repository"):
            await saying(200, {}, json.dumps({"token": "anybody"}).encode())(request, writer)
        elif request.headers.get("authorization") == "bearer anybody":
            await server.properly(request, writer)
        else:
            challenge = f'Bearer realm="{server.address}/token",service="reg",scope="repository:tiny:pull"'
            await saying(401, {"WWW-Authenticate": challenge})(request, writer)

    server.always = registry
    wanted = manifest(server, layout="oci-registry")
    await fetch(store, wanted)
    assert has(store, wanted)


@pytest.mark.parametrize(
    "answer", [endless, saying(200, {}, b"{}"), saying(200, {}, b'{"token": "two\\nlines"}'), saying(500)]
)
async def test_a_bad_token_service_is_a_bad_mirror(
    store: Store, server: MirrorServer, answer: Answer
) -> None:
    async def registry(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path.startswith("/token"):
            await answer(request, writer)
        else:
            challenge = f'Bearer realm="{server.address}/token"'
            await saying(401, {"WWW-Authenticate": challenge})(request, writer)

    server.always = registry
    steps = await asyncio.wait_for(fetch(store, manifest(server)), 30)
    assert "token" in steps[0].note


@pytest.mark.parametrize("drips", ["the head", "the token's head", "the token"])
async def test_a_mirror_that_drips_what_comes_before_the_body_is_given_up(
    store: Store, server: MirrorServer, drips: str
) -> None:
    async def registry(request: Request, writer: asyncio.StreamWriter) -> None:
        if drips == "the head":
            await dripping_head(request, writer)
        elif request.path.startswith("/token"):
            await (dripping_head if drips == "the token's head" else trickling)(request, writer)
        else:
            challenge = f'Bearer realm="{server.address}/token"'
            await saying(401, {"WWW-Authenticate": challenge})(request, writer)

    server.always = registry
    impatient = replace(LIMITS, connect_seconds=0.2, silence_seconds=0.2)
    steps = await asyncio.wait_for(fetch(store, manifest(server), impatient), 30)
    assert "has not answered within 0.4 s" in steps[0].note
    assert steps[-1].missing_bytes == len(WEIGHTS)


async def test_a_slow_disk_is_not_blamed_on_the_mirror(
    store: Store, server: MirrorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Upload.write_chunk

    def slow(upload: Upload, index: int, data: bytes) -> None:
        time.sleep(0.1)  # 164 KB/s
        write(upload, index, data)

    monkeypatch.setattr(Upload, "write_chunk", slow)
    data = bytes(256 * 1024)  # more than comes in one piece
    server.add(data)
    named = [{"layout": "oci-layout", "url": server.address}]
    wanted = make_artifact({"model.bin": data}, chunk_bytes=16 * 1024, mirrors=named).manifest
    limits = MirrorLimits(window_seconds=1.0, bytes_per_second_min=1_000_000)
    steps = await fetch(store, wanted, limits)
    assert has(store, wanted)
    assert [step.note for step in steps if step.note] == []


async def test_an_interrupted_fetch_goes_on_after_a_restart_of_the_agent(
    tmp_path: Path, server: MirrorServer
) -> None:
    for _ in range(3):  # each agent gets ten chunks, and its link is dead from then on
        server.answers, server.always = [server.broken_after(10_240)], server.broken_after(0)
        store = Store(tmp_path / "store", space=Space(reserve_bytes=0))
        assert (await fetch(store, manifest(server)))[-1].fetched_bytes == 10_240
        store.close()
    server.always = None
    store = Store(tmp_path / "store", space=Space(reserve_bytes=0))
    wanted = manifest(server)
    steps = await fetch(store, wanted)
    assert has(store, wanted)
    assert steps[-1].fetched_bytes == len(WEIGHTS) - 3 * 10_240
    store.close()


async def test_a_full_disk_ends_the_fetch(tmp_path: Path, server: MirrorServer) -> None:
    store = Store(tmp_path / "small", space=Space(quota_bytes=10_000, reserve_bytes=0))
    with pytest.raises(OutsideError, match="full"):
        await fetch(store, manifest(server))
    assert server.requests == []
    store.close()


async def test_memory_does_not_grow_with_the_size_of_a_blob(store: Store, server: MirrorServer) -> None:
    peaks = []
    for mebibytes in (2, 16):
        data = bytes(mebibytes * 2**20)
        server.blobs = {}
        server.add(data)
        wanted = make_artifact(
            {"model.bin": data},
            chunk_bytes=256 * 1024,
            mirrors=[{"layout": "oci-layout", "url": server.address}],
        ).manifest
        tracemalloc.start()
        await fetch(store, wanted, MirrorLimits())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert has(store, wanted)
    assert peaks[1] < peaks[0] + 4 * 2**20, peaks


@pytest.mark.parametrize(
    "url",
    ["ftp://a/b", "https://user:secret@a/b", "https://a/b?x=1", "https://a/../b/", "https://a/b/", "file:///etc",
     "https://a b", "https://", "http://a/#x", "https://a/" + "x" * 600],
)  # fmt: skip
def test_an_address_that_is_no_plain_web_address_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        Mirror(layout="oci-layout", url=url)

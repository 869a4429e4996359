"""Whatever comes over the wire: the agent answers, lives, and its store does not grow."""

from __future__ import annotations

import collections
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.dsse import PAYLOAD_TYPE, encode_envelope, key_id, pae
from edgewright.errors import EdgewrightError
from edgewright.manifest import Manifest, parse_manifest
from edgewright.trust.accepted_signatures import check_release
from edgewright.v1 import deployment_pb2 as deployment
from edgewright.v1 import deployment_pb2_grpc
from tests.agent.test_agent_process import insecure, trusted
from tests.support.agent_process import AgentProcess, serving
from tests.support.artifacts import RELEASE_KEY, make_artifact, write_requests
from tests.support.trust_documents import document
from tests.support.wire_fuzz import Method, bodies, methods, mutated_text

__all__ = ["trusted"]  # the fixture

FAST_CASES, SLOW_CASES = 300, 10_000  # of calls; as many manifests and envelopes again in the slow test
QUOTA_BYTES = 4_000_000
HANG_SECONDS = 20.0  # a busy machine is no hang
LISTENS_FOR = 1  # responses; some streams never end
ARTIFACT = make_artifact()


def at_most(cases: int) -> settings:
    return settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def seeds() -> list[Message]:
    """Calls that succeed, or nearly."""
    blob, (data, *_) = ARTIFACT.blobs[0], ARTIFACT.contents.values()
    release = bytes.fromhex(ARTIFACT.digest)
    return [
        *write_requests(blob, data, [0]),
        deployment.FindMissingBlobsRequest(blobs=[write_requests(blob, data, [])[0].blob]),
        deployment.StageReleaseRequest(manifest=ARTIFACT.manifest_bytes, signature=ARTIFACT.envelope),
        deployment.FetchBlobsRequest(manifest=ARTIFACT.manifest_bytes, signature=ARTIFACT.envelope),
        deployment.QueryWriteStatusRequest(sha256=bytes.fromhex(blob.sha256)),
        deployment.ActivateReleaseRequest(release=release, force=True),
        deployment.DeleteReleaseRequest(release=release),
    ]


@pytest.fixture
def agent(tmp_path: Path, trusted: Path) -> Iterator[AgentProcess]:
    options = ("--store-quota", f"{QUOTA_BYTES}B", "--store-reserve", "0B")
    with serving(tmp_path / "store", *insecure(trusted), *options) as agent:
        yield agent


class Caller:
    """Makes calls with any bytes, and counts how they ended."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.ended: collections.Counter[str] = collections.Counter()

    def call(self, method: Method, messages: list[bytes]) -> None:
        """Raises AssertionError if the agent failed, hung or is gone."""
        try:
            self._read(self._begin(method, messages))
            status = "OK"
        except grpc.RpcError as error:
            status, details = self._status(error)
            assert status not in ("UNKNOWN", "DEADLINE_EXCEEDED", "CANCELLED"), (
                method.path,
                messages,
                details,
            )
            # What is no message of the call's type, grpc refuses by itself.
            assert status != "INTERNAL" or "deserializing" in details, (method.path, messages, details)
        self.ended[status] += 1

    def _begin(self, method: Method, messages: list[bytes]) -> Any:
        kinds = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, False): self.channel.stream_unary,
            (True, True): self.channel.stream_stream,
        }
        make: Any = kinds[method.streams_requests, method.streams_responses]
        body = iter(messages) if method.streams_requests else messages[0]
        call = make(method.path)
        if method.streams_responses:
            return call(body, timeout=HANG_SECONDS)
        return iter([call(body, timeout=HANG_SECONDS)])

    def _read(self, responses: Any) -> None:
        for number, _ in enumerate(responses, start=1):
            if number == LISTENS_FOR and hasattr(responses, "cancel"):
                responses.cancel()
                return

    def _status(self, error: Any) -> tuple[str, str]:
        return error.code().name, error.details() or ""


def told(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common())


def stored(root: Path) -> dict[str, int]:
    """What lies in the store for good."""
    folders = [root / "blobs", root / "releases", root / "quarantine"]
    return {
        str(path): path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()
    }


def fuzz_calls(agent: AgentProcess, store: Path, cases: int) -> collections.Counter[str]:
    caller, all_methods, known = Caller(agent.address), methods(), seeds()
    before = stored(store)

    @at_most(cases)
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        method = data.draw(st.sampled_from(all_methods))
        caller.call(method, data.draw(bodies(method, known)))

    fuzz()
    assert agent.process.poll() is None
    stub = deployment_pb2_grpc.DeploymentServiceStub(caller.channel)
    assert stub.GetDevice(deployment.GetDeviceRequest(), timeout=HANG_SECONDS).profile_id
    # A case may happen to be sound: then it may store what it names, and no more.
    ours = set(ARTIFACT.contents) | {ARTIFACT.digest}
    assert all(any(name in path for name in ours) for path in stored(store).keys() - before.keys())
    partial_bytes = sum(path.stat().st_size for path in (store / "partial").iterdir())
    assert partial_bytes <= 2 * sum(len(data) for data in ARTIFACT.contents.values())
    return caller.ended


def test_no_call_with_any_bytes_crashes_hangs_or_grows_the_store(agent: AgentProcess, tmp_path: Path) -> None:
    ended = fuzz_calls(agent, tmp_path / "store", FAST_CASES)
    assert sum(ended.values()) >= FAST_CASES


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_calls_do_not_either(
    agent: AgentProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = fuzz_calls(agent, tmp_path / "store", SLOW_CASES)
    with capsys.disabled():
        sys.stdout.write(f"\n{sum(ended.values())} calls: {told(ended)}\n")
    assert sum(ended.values()) >= SLOW_CASES


def signed(payload: bytes) -> bytes:
    """Even a signed manifest may be nonsense."""
    return encode_envelope(
        payload, {key_id(RELEASE_KEY.public_key()): RELEASE_KEY.sign(pae(PAYLOAD_TYPE, payload))}
    )


def judge_offline(manifest: bytes, envelope: bytes) -> Manifest | None:
    with contextlib.suppress(EdgewrightError):
        check_release(document(), manifest, envelope)
        return parse_manifest(manifest)
    return None


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda children: st.one_of(
        st.lists(children, max_size=3), st.dictionaries(st.text(max_size=4), children, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def manifests(draw: st.DrawFn) -> bytes:
    """A sound manifest with one value replaced, one removed, or bytes that are wrong."""
    if draw(st.booleans()):
        return draw(mutated_text(ARTIFACT.manifest_bytes))
    fields = json.loads(ARTIFACT.manifest_bytes)
    where: Any = fields
    while draw(st.booleans()) and isinstance(where, (dict, list)) and where:
        key = draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        if isinstance(where[key], (dict, list)) and where[key]:
            where = where[key]
            continue
        where[key] = draw(JSON_VALUES)
        break
    else:
        fields[draw(st.sampled_from(sorted(fields)))] = draw(JSON_VALUES)
    return json.dumps(fields).encode()


def fuzz_documents(cases: int) -> collections.Counter[str]:
    found: collections.Counter[str] = collections.Counter()

    @at_most(cases)
    @given(manifests(), mutated_text(ARTIFACT.envelope))
    def fuzz(manifest: bytes, envelope: bytes) -> None:
        accepted = judge_offline(manifest, signed(manifest))
        found["signed manifests accepted" if accepted else "signed manifests refused"] += 1
        if accepted is not None:
            assert all(".." not in file.path and not file.path.startswith("/") for file in accepted.files)
            assert sum(file.size_bytes for file in accepted.files) == accepted.size_bytes
        if envelope != ARTIFACT.envelope:
            assert judge_offline(ARTIFACT.manifest_bytes, envelope) is None
            found["altered envelopes refused"] += 1

    fuzz()
    return found


def test_no_manifest_or_envelope_with_any_bytes_passes_or_crashes() -> None:
    assert sum(fuzz_documents(FAST_CASES).values()) >= FAST_CASES


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_manifests_and_envelopes_do_not_either(capsys: pytest.CaptureFixture[str]) -> None:
    found = fuzz_documents(SLOW_CASES)
    with capsys.disabled():
        sys.stdout.write(f"\n{told(found)}\n")
    assert sum(found.values()) >= SLOW_CASES

"""GGUF releases on a board: they serve, and one that can't leaves the old one serving."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from edgewright.errors import RefusedError
from edgewright.v1 import deployment_pb2, inference_pb2, inference_pb2_grpc
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment.contents import check_contents
from edgewright_agent.engines.llama_cpp.build import COMMAND_VARIABLE
from edgewright_agent.server import run_agent
from tests.agent.conftest import settings_for
from tests.agent.services.test_deployment_service import reason_of
from tests.support.artifacts import TIMEOUT_SECONDS, TestArtifact, activate, make_artifact, push
from tests.support.engine_releases import Release, tiny_llama_release
from tests.support.llama_server import write_server
from tests.support.tiny_gguf import write_tiny_gguf

GREEDY = (85, 74, 74, 71, 69, 67, 265, 71)  # after PROMPT, by transformers
PROMPT = "on the other hand"


@pytest.fixture(scope="module")
def tree(tiny_onnx: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama_release(tiny_onnx, tmp_path_factory.mktemp("llama")).tree


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    """To an agent whose engines are real."""
    async with (
        run_agent(settings_for(tmp_path / "store")) as agent,
        grpc.aio.insecure_channel(str(agent.address)) as channel,
    ):
        yield channel


def artifact_of(tree: Path, contents: dict[str, bytes] | None = None, **fields: Any) -> TestArtifact:
    files = {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()} | (
        contents or {}
    )
    golden = {"prompt": PROMPT, "tokens": list(GREEDY)}
    memory = {
        "budget_bytes": 2**30, "predicted_peak_bytes": 2**28, "error_bytes": 2**20, "calibrated_on": "tests",
    }  # fmt: skip
    return make_artifact(
        files, engine={"kind": "llama.cpp"}, **{"golden": golden, "memory": memory, **fields}
    )


async def asked(channel: grpc.aio.Channel) -> list[int]:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    request = inference_pb2.GenerateRequest(prompt=PROMPT, max_tokens=len(GREEDY))
    events = [event async for event in stub.Generate(request, timeout=TIMEOUT_SECONDS)]
    return [delta.token for event in events for delta in event.deltas]


async def serve(channel: grpc.aio.Channel, artifact: TestArtifact) -> bytes:
    release = await push(channel, artifact)
    steps = await activate(channel, release)
    assert steps[-1].outcome == deployment_pb2.OUTCOME_COMMITTED, steps[-1]
    return release


async def test_a_gguf_release_passes_its_golden_prompt_and_serves(
    channel: grpc.aio.Channel, tree: Path
) -> None:
    await serve(channel, artifact_of(tree))
    assert await asked(channel) == list(GREEDY)


async def test_one_of_an_unknown_architecture_says_so_and_the_old_one_goes_on_serving(
    channel: grpc.aio.Channel, tree: Path, tiny_onnx: Release, tmp_path: Path
) -> None:
    old = await serve(channel, artifact_of(tree))
    file = tmp_path / "strange.gguf"
    write_tiny_gguf(tiny_onnx.tree / "checkpoint", file, architecture="gemma9")
    strange = artifact_of(tree, {"engine/model.gguf": file.read_bytes()}, version="2")
    steps = await activate(channel, await push(channel, strange))
    assert steps[-1].outcome == deployment_pb2.OUTCOME_ROLLED_BACK
    assert any("unknown model architecture: 'gemma9'" in step.message for step in steps)
    assert steps[-1].active_release == old
    assert await asked(channel) == list(GREEDY)


async def test_one_that_answers_other_tokens_is_taken_back(channel: grpc.aio.Channel, tree: Path) -> None:
    old = await serve(channel, artifact_of(tree))
    wrong = artifact_of(tree, golden={"prompt": PROMPT, "tokens": [1, *GREEDY[1:]]}, version="2")
    steps = await activate(channel, await push(channel, wrong))
    assert steps[-1].outcome == deployment_pb2.OUTCOME_ROLLED_BACK
    assert steps[-1].active_release == old
    assert await asked(channel) == list(GREEDY)


@pytest.mark.parametrize(
    ("server", "why"),
    [("none", "is no executable"), ("old", "is too old: it does not know --no-prefill-assistant")],
)
async def test_a_board_without_a_server_for_it_refuses_it_before_its_bytes_are_sent(
    channel: grpc.aio.Channel,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    why: str,
) -> None:
    await serve(channel, artifact_of(tree))
    old = write_server(tmp_path, version="4100", without="--no-prefill-assistant")
    monkeypatch.setenv(COMMAND_VARIABLE, str(old) if server == "old" else str(tmp_path / "none"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await push(channel, artifact_of(tree, version="2"))
    assert reason_of(caught.value) == "ENGINE_UNAVAILABLE"
    details = caught.value.details() or ""
    assert f"needs the engine llama.cpp, which can't run here: {tmp_path}" in details
    assert why in details
    assert "\n" not in details
    assert await asked(channel) == list(GREEDY)  # the old release goes on serving


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        ({"engine/model.gguf": b"GGML" + b"x" * 40}, "it is no GGUF file"),
        ({"engine/model.gguf": b"GGUF"}, "it is no GGUF file"),
        ({"engine/model.gguf": b"GGUF\x01\0\0\0" + b"\1" * 16}, "of GGUF version 1"),
        ({"engine/model.gguf": b"GGUF\x03\0\0\0" + b"\0" * 16}, "holds no tensors"),
        (
            {"engine/model.gguf": b"GGUF\x03\0\0\0" + b"\1" * 16 + b"\x0b" + b"\0" * 7 + b"split.count"},
            "one part of several",
        ),
        ({"engine/other.gguf": b"GGUF"}, "expected model.gguf alone"),
    ],
)
def test_what_llama_cpp_could_not_load_or_would_look_for_elsewhere_is_refused(
    tree: Path, tmp_path: Path, contents: dict[str, bytes], why: str
) -> None:
    artifact = artifact_of(tree, contents)
    for name, data in artifact.contents.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(RefusedError, match=why) as caught:
        check_contents(artifact.manifest, lambda file: tmp_path / file.sha256)
    assert caught.value.reason == Reason.REASON_CONTENT_REFUSED

"""The whole way over the wire: push, stage, activate, generate."""

from __future__ import annotations

import grpc
import grpc.aio

from edgewright.v1 import deployment_pb2, inference_pb2, inference_pb2_grpc
from edgewright_agent.server import RunningAgent
from tests.support.artifacts import TIMEOUT_SECONDS, activate, make_artifact, push
from tests.support.scripted_engine import TOKENS


async def test_a_pushed_release_serves(channel: grpc.aio.Channel, running_agent: RunningAgent) -> None:
    artifact = make_artifact(golden={"prompt": "hello", "tokens": list(TOKENS)})
    release = await push(channel, artifact)
    assert release.hex() == artifact.digest
    steps = await activate(channel, release)
    assert steps[-1].outcome == deployment_pb2.OUTCOME_COMMITTED
    assert steps[-1].active_release == release
    assert [probe.name for probe in steps[-1].probes if probe.passed] == [
        "ready",
        "golden_prompt",
        "latency",
        "rate",
        "peak_memory",
        "no_out_of_memory",
    ]

    request = inference_pb2.GenerateRequest(prompt="hello", max_tokens=3)
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    events = [event async for event in stub.Generate(request, timeout=TIMEOUT_SECONDS)]
    assert [delta.token for event in events for delta in event.deltas] == list(TOKENS)
    assert events[-1].completion.generated_tokens == 3
    assert events[-1].completion.finish_reason == inference_pb2.FINISH_REASON_LENGTH

"""Users see which kernels an engine chose, and are warned of slow ones."""

from __future__ import annotations

import grpc.aio
import pytest

from edgewright.v1 import deployment_pb2, deployment_pb2_grpc
from edgewright_agent.engines.vllm.log import KernelLog
from edgewright_builder.python_api.results.board import status_of
from tests.support.artifacts import TIMEOUT_SECONDS, activate, make_artifact, push
from tests.support.scripted_engine import Script

# As vLLM 0.32 logs them on a CPU, and as 0.33's source does on a GPU.
CPU_LOG = (
    "(Worker pid=238) INFO 11-24 06:18:58 [__init__.py:923] Using CPUWNA16LinearKernel for mixed-precision linear",
    "(Worker pid=238) INFO 11-24 06:18:58 [auto_gptq.py:352] Using CPUWNA16LinearKernel for AutoGPTQLinearMethod",
    "(Worker pid=238) INFO 11-24 06:18:58 [auto_gptq.py:352] Using CPUWNA16LinearKernel for AutoGPTQLinearMethod",
    "(Worker pid=238) INFO 11-24 06:18:59 [kernel.py:467] Final IR op priority after setting platform defaults",
)


def test_kernels_are_read_from_the_log_once_each() -> None:
    log = KernelLog()
    for line in CPU_LOG:
        log.read(line)
    assert log.kernels == [
        "CPUWNA16LinearKernel for mixed-precision linear",
        "CPUWNA16LinearKernel for AutoGPTQLinearMethod",
    ]


@pytest.mark.parametrize(
    ("kernel", "slow"), [("MarlinLinearKernel", []), ("ConchLinearKernel", ["ConchLinearKernel for GPTQ"])]
)
def test_what_vllm_falls_back_to_is_slow(kernel: str, slow: list[str]) -> None:
    log = KernelLog()
    log.read(f"(EngineCore pid=1) INFO 11-24 06:18:58 [auto_gptq.py:352] Using {kernel} for GPTQ")
    assert log.slow_kernels == slow


@pytest.mark.parametrize(
    ("kernel", "fast"),
    [
        ("MarlinLinearKernel for GPTQMarlinLinearMethod", True),
        ("ExllamaLinearKernel for GPTQMarlinLinearMethod", False),
    ],
)
async def test_the_chosen_kernels_are_a_probe_and_in_the_board_s_status(
    channel: grpc.aio.Channel, script: Script, kernel: str, fast: bool
) -> None:
    script.kernels = (kernel,)
    script.slow_kernels = () if fast else (kernel,)
    steps = await activate(channel, await push(channel, make_artifact()))
    (probe,) = [probe for probe in steps[-1].probes if probe.name == "kernels"]
    assert (probe.passed, probe.required, probe.detail) == (fast, False, kernel)
    assert steps[-1].outcome == deployment_pb2.OUTCOME_COMMITTED
    stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
    device = await stub.GetDevice(deployment_pb2.GetDeviceRequest(), timeout=TIMEOUT_SECONDS)
    assert f"  kernel: {kernel}" in str(status_of(device, [])).splitlines()


async def test_an_engine_that_does_not_say_has_no_such_probe(channel: grpc.aio.Channel) -> None:
    steps = await activate(channel, await push(channel, make_artifact()))
    assert "kernels" not in {probe.name for probe in steps[-1].probes}

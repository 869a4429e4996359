"""Push and its verdict against the real agent: over its own store and lifecycle, and as a process that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgewright.address import Address
from edgewright.errors import InputError, OutsideError, RefusedError
from edgewright.trust.keys import load_public_key
from edgewright.v1.common_pb2 import Reason
from edgewright.v1.inference_pb2 import GenerateRequest
from edgewright_agent.benchmark.load import BenchmarkPlan
from edgewright_agent.server import run_agent
from edgewright_agent.store import Space
from edgewright_builder.artifact.artifact import Artifact
from edgewright_builder.bench.board import run_from_here, run_on_board, subject_of
from edgewright_builder.cli.main import app
from edgewright_builder.device_client.backoff import Patience
from edgewright_builder.device_client.board_scorer import score
from edgewright_builder.device_client.channel import parse_address
from edgewright_builder.device_client.client import DeviceClient
from edgewright_builder.device_client.verdict import watch_verdict
from edgewright_builder.keys.credentials import create_credentials
from edgewright_builder.keys.key_files import load_signing_key
from edgewright_builder.push import transfer
from edgewright_builder.push.push import PushResult, push
from edgewright_builder.push.transfer import TransferListener
from tests.agent.conftest import settings_for
from tests.support.bad_link import Link, bad_link
from tests.support.built_artifacts import make_artifact
from tests.support.scripted_engine import Script, only_fake

MIB = 1024 * 1024
MODEL = b"".join(bytes([index]) * MIB for index in range(9))
BOARD = "raspberry-pi-5-8gb"


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("credentials")
    create_credentials(folder)
    return folder


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def client(tmp_path: Path, credentials: Path, script: Script) -> AsyncIterator[DeviceClient]:
    keys = (load_public_key(credentials / "release.pub"),)
    settings = settings_for(tmp_path / "store", trusted_keys=keys)
    async with (
        run_agent(settings, available_engines=only_fake, start_engine=script.start) as agent,
        DeviceClient(agent.address, None) as client,
    ):
        yield client


def artifact_of(folder: Path, credentials: Path, model: bytes = MODEL, **fields: Any) -> Artifact:
    key = load_signing_key(credentials / "release.key")
    fields = {"device_profiles": (BOARD,), **fields}
    return make_artifact(folder, {"engine/model.bin": model, "engine/empty": b""}, key, **fields)


async def send(client: DeviceClient, artifact: Artifact, **options: object) -> PushResult:
    return await push(client, artifact.folder, None, **options)  # type: ignore[arg-type]


async def test_a_push_is_committed_and_serves(
    client: DeviceClient, tmp_path: Path, credentials: Path
) -> None:
    result = await send(client, artifact_of(tmp_path / "artifact", credentials))
    assert result.verdict is not None
    assert result.verdict.committed
    assert result.sent_bytes == len(MODEL)
    assert {"ready", "peak_memory"} <= {probe.name for probe in result.verdict.probes}
    events = [event async for event in client.generate(GenerateRequest(prompt="x", max_tokens=4))]
    assert "".join(delta.text for event in events for delta in event.deltas) == "t0 t1 t2 t3 "
    assert events[-1].completion.generated_tokens == 4


async def test_a_second_push_sends_nothing_and_a_changed_chunk_travels_alone(
    client: DeviceClient, tmp_path: Path, credentials: Path
) -> None:
    await send(client, artifact_of(tmp_path / "first", credentials))
    assert (await send(client, artifact_of(tmp_path / "first", credentials))).sent_bytes == 0
    changed = artifact_of(tmp_path / "second", credentials, MODEL[:-1] + b"!")
    result = await send(client, changed)
    assert result.sent_bytes == MIB  # the last chunk of 4 + 4 + 1 MiB
    assert result.verdict is not None
    assert result.verdict.committed


async def test_a_release_whose_engine_does_not_start_is_rolled_back_and_says_why(
    client: DeviceClient, script: Script, tmp_path: Path, credentials: Path
) -> None:
    good = await send(client, artifact_of(tmp_path / "good", credentials))
    bad = artifact_of(tmp_path / "bad", credentials, b"bad")
    script.refuse.add(bad.digest)
    verdict = (await send(client, bad)).verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.active_release) == ("rolled_back", good.release)
    with pytest.raises(RefusedError) as caught:
        await send(client, bad)
    assert caught.value.reason == Reason.REASON_RELEASE_DENIED
    script.refuse.clear()
    forced = await send(client, bad, force=True)
    assert forced.verdict is not None
    assert forced.verdict.committed


async def test_a_first_release_that_fails_leaves_nothing_to_go_back_to(
    client: DeviceClient, script: Script, tmp_path: Path, credentials: Path
) -> None:
    artifact = artifact_of(tmp_path / "artifact", credentials)
    script.refuse.add(artifact.digest)
    verdict = (await send(client, artifact)).verdict
    assert verdict is not None
    assert (verdict.outcome, verdict.active_release) == ("failed", "")


async def test_a_golden_prompt_that_differs_rolls_back_with_both_token_lists(
    client: DeviceClient, tmp_path: Path, credentials: Path
) -> None:
    await send(client, artifact_of(tmp_path / "good", credentials))
    golden = {"prompt": "x", "tokens": (5, 6, 9)}
    verdict = (await send(client, artifact_of(tmp_path / "bad", credentials, b"bad", golden=golden))).verdict
    assert verdict is not None
    assert verdict.outcome == "rolled_back"
    (failed,) = [probe for probe in verdict.probes if not probe.passed]
    assert failed.name == "golden_prompt"


async def test_rolling_back_serves_the_previous_release(
    client: DeviceClient, tmp_path: Path, credentials: Path
) -> None:
    first = await send(client, artifact_of(tmp_path / "first", credentials))
    await send(client, artifact_of(tmp_path / "second", credentials, b"second"))
    target = await client.roll_back()
    verdict = await watch_verdict(client, target, Patience(5), lambda text: None)
    assert verdict.active_release == target.hex() == first.release
    assert verdict.committed


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"device_profiles": ("jetson-orin-nano-8gb",)}, Reason.REASON_DEVICE_MISMATCH),
        (
            {
                "memory": {
                    "budget_bytes": 2**40,
                    "predicted_peak_bytes": 2**40,
                    "error_bytes": 0,
                    "calibrated_on": "-",
                }
            },
            Reason.REASON_MEMORY_BUDGET,
        ),
        ({"engine": {"kind": "vllm"}}, Reason.REASON_ENGINE_UNAVAILABLE),
    ],
)
async def test_a_refused_stage_keeps_its_reason(
    client: DeviceClient,
    tmp_path: Path,
    credentials: Path,
    fields: dict[str, Any],
    reason: Reason.ValueType,
) -> None:
    with pytest.raises(RefusedError) as caught:
        await send(client, artifact_of(tmp_path / "artifact", credentials, **fields))
    assert caught.value.reason == reason


async def test_an_artifact_of_a_stranger_is_refused_by_the_board(
    client: DeviceClient, tmp_path: Path
) -> None:
    create_credentials(tmp_path / "strangers")
    with pytest.raises(RefusedError) as caught:
        await send(client, artifact_of(tmp_path / "artifact", tmp_path / "strangers"))
    assert caught.value.reason == Reason.REASON_KEY_UNTRUSTED


async def test_scores_come_back_in_order(client: DeviceClient, tmp_path: Path, credentials: Path) -> None:
    await send(client, artifact_of(tmp_path / "artifact", credentials))
    assert await score(client, [("a", ["bb", "c"]), ("d", ["eeee"])]) == [[-2.0, -1.0], [-4.0]]


async def test_a_benchmark_ends_with_the_boards_and_the_hosts_figures(
    client: DeviceClient, script: Script, tmp_path: Path, credentials: Path
) -> None:
    script.pause_seconds = 0.01
    await send(client, artifact_of(tmp_path / "artifact", credentials))
    steps: list[int] = []
    plan = BenchmarkPlan(prompts=3, input_tokens=4, output_tokens=5, concurrency=1, seed=2**40)
    result = await run_on_board(client, plan, lambda done, total, rate: steps.append(done))
    assert (result.prompts, result.prompts_failed, steps) == (3, 0, [0, 1, 2, 3])
    seen, link = await run_from_here(client, plan, lambda done, total, rate: None)
    assert (seen.prompts, seen.prompts_failed, seen.output_tokens) == (3, 0, 5)
    for view in (result, seen):
        assert 0.01 <= view.time_per_output_token_seconds.mean < 1
        assert view.end_to_end_seconds.count == 3
        assert view.seed == plan.seed
    # The agent's clock starts after the host's and stops before it.
    assert link.count == 3
    assert 0 < link.mean < seen.time_to_first_token_seconds.mean
    device, releases, snapshot = (
        await client.get_device(), await client.list_releases(), await client.get_snapshot(),
    )  # fmt: skip
    place = subject_of("board:1", device, releases, snapshot)
    assert (place.model, place.device, place.budget_bytes) == (
        "tiny 1.0",
        BOARD,
        snapshot.memory.budget_bytes,
    )


@contextlib.contextmanager
def agent_process(
    store: Path, credentials: Path, port: int = 0
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`edgewright-agent serve` over mutual TLS with the fake engine, and its port."""
    command = [
        str(Path(sys.executable).with_name("edgewright-agent")), "serve", "--profile", "this-host",
        "--store", str(store), "--listen", f"127.0.0.1:{port}", "--probation", "0",
        "--tls-cert", str(credentials / "agent.pem"), "--tls-key", str(credentials / "agent.key"),
        "--tls-ca", str(credentials / "ca.pem"), "--trust", str(credentials / "release.pub"),
    ]  # fmt: skip
    environment = {**os.environ, "EDGEWRIGHT_FAKE_ENGINE": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process, parse_address(process.stdout.readline().split()[-1]).port
        finally:
            process.terminate()
            process.wait(20)


async def test_a_killed_agent_gets_the_rest_and_not_what_is_durable(
    tmp_path: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "TELL_SECONDS", 0.0)
    model = os.urandom(80 * MIB)
    artifact = artifact_of(tmp_path / "artifact", credentials, model, device_profiles=("this-host",))
    blob = next(bytes.fromhex(file.sha256) for file in artifact.manifest.files if file.size_bytes)
    sent: list[int] = []
    sent_when_cut: list[int] = []
    listener = TransferListener(
        sent=lambda progress: sent.append(progress.bytes),
        note=lambda text: sent_when_cut.append(sent[-1]) if text.startswith("Resuming") else None,
    )
    link = Link(silent_after_bytes=72 * MIB)  # the end is held back until the kill
    with agent_process(tmp_path / "store", credentials) as (process, port):
        address = parse_address(f"localhost:{port}")
        async with (
            bad_link(address, link) as far,
            DeviceClient(far, credentials) as client,
            DeviceClient(address, credentials) as near,
        ):
            pushing = asyncio.create_task(send(client, artifact, listener=listener))
            durable_bytes = 0
            while not (link.silent and durable_bytes):  # an agent leaves 64 MiB unflushed at the most
                assert not pushing.done()
                await asyncio.sleep(0.005)
                durable_bytes = await durable_bytes_of(near, blob)
            process.send_signal(signal.SIGKILL)
            process.wait()
            link.silent, link.silent_after_bytes = False, None
            with agent_process(tmp_path / "store", credentials, port):
                result = await pushing
    assert result.verdict is not None
    assert result.verdict.committed
    assert result.sent_bytes - sent_when_cut[0] <= len(model) - durable_bytes


async def durable_bytes_of(client: DeviceClient, blob: bytes) -> int:
    """What of an upload would survive a power cut."""
    try:
        return (await client.query_write_status(blob)).durable_bytes
    except RefusedError:
        return 0  # not begun


async def test_an_observer_may_look_and_not_deploy(tmp_path: Path, credentials: Path) -> None:
    observer = tmp_path / "observer"
    observer.mkdir()
    for name in ("ca.pem", "observer.pem", "observer.key"):
        (observer / name).write_bytes((credentials / name).read_bytes())
    with agent_process(tmp_path / "store", credentials) as (_, port):
        async with DeviceClient(parse_address(f"localhost:{port}"), observer) as client:
            assert (await client.get_device()).profile_id == "this-host"
            with pytest.raises(RefusedError) as caught:
                await client.roll_back()
    assert caught.value.reason == Reason.REASON_PERMISSION


async def test_a_deadline_goes_with_every_question(client: DeviceClient) -> None:
    for question in (client.get_device, client.list_releases, client.get_snapshot):
        await question()
    with pytest.raises((InputError, RefusedError)) as caught:
        await client.query_write_status(bytes(32))
    assert caught.value.reason == Reason.REASON_UPLOAD_UNKNOWN


async def test_a_full_board_takes_the_push_after_the_command_that_its_refusal_names(
    tmp_path: Path, credentials: Path, script: Script
) -> None:
    keys, space = (load_public_key(credentials / "release.pub"),), Space(quota_bytes=3 * MIB, reserve_bytes=0)
    settings = settings_for(tmp_path / "store", trusted_keys=keys, space=space)
    made = [artifact_of(tmp_path / str(n), credentials, bytes([n]) * MIB, version=str(n)) for n in range(5)]
    async with (
        run_agent(settings, available_engines=only_fake, start_engine=script.start) as agent,
        DeviceClient(agent.address, None) as client,
    ):
        for artifact in made[:3]:
            await send(client, artifact)
        with pytest.raises(OutsideError, match=r"`edgewright releases HOST --delete DIGEST`"):
            await send(client, made[3])
        in_use = await command("releases", agent.address, "--delete", made[2].digest[:12])
        assert isinstance(in_use.exception, RefusedError)
        assert "it can't be deleted" in str(in_use.exception)
        done = await command("releases", agent.address, "--delete", made[0].digest[:12])
        assert f"deleted {made[0].digest[:12]} (tiny 0): freed 1.0 MiB" in done.output
        await send(client, made[3])
        done = await command("gc", agent.address, "--releases")
        assert f"deleted {made[1].digest[:12]} (tiny 1): freed 1.0 MiB" in done.output
        await send(client, made[4])


async def command(name: str, address: Address, *options: str) -> Any:
    arguments = [name, str(address), *options, "--insecure"]
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)

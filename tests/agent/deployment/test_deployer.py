"""Activation with engines that misbehave: whatever they do, the board ends up serving something good."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgewright.durable import FileSystem
from edgewright.errors import OutsideError
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.deployment import activation
from edgewright_agent.deployment.activation_rules import ATTEMPTS_MAX
from edgewright_agent.deployment.deployer import Deployer
from edgewright_agent.deployment.engine_manager import ServingRelease
from edgewright_agent.deployment.state import ChangeOutcome, Phase, State
from edgewright_agent.deployment.state_writer import DeploymentStatus
from edgewright_agent.store import Space, StagedRelease, StateFile, Store
from tests.support.artifacts import make_artifact, stage
from tests.support.scripted_engine import TOKENS, Script

GOOD = make_artifact(version="1.0", golden={"prompt": "p", "tokens": list(TOKENS)})
NEXT = make_artifact(version="2.0", golden={"prompt": "p", "tokens": list(TOKENS)})


async def nobody_listens(serving: ServingRelease | None) -> None:
    """Nothing follows what is served."""


@contextlib.asynccontextmanager
async def deploying(root: Path, script: Script, **options: Any) -> AsyncIterator[Deployer]:
    """A deployer over a store that holds `GOOD` and `NEXT`."""
    store = Store(root, space=Space(reserve_bytes=0))
    for artifact in (GOOD, NEXT):
        if artifact.digest not in store.releases():
            stage(store, artifact)
    settings = {
        "budget_bytes": 10_000, "restart_seconds": 0.01, "on_serving": nobody_listens, **options,
    }  # fmt: skip
    deployer = Deployer(store, script.start, **settings)
    try:
        await deployer.start()
        yield deployer
    finally:
        await deployer.stop()
        store.close()


async def at_rest(deployer: Deployer) -> list[DeploymentStatus]:
    return [status async for status in deployer.watch(follow=False)]


async def activated(deployer: Deployer, digest: str) -> list[DeploymentStatus]:
    await deployer.activate(digest)
    return await at_rest(deployer)


async def test_the_old_engine_is_gone_before_the_new_one_starts(tmp_path: Path) -> None:
    running: list[int] = []

    class Counting(Script):
        async def start(self, release: StagedRelease) -> Any:
            running.append(len(self.running))
            return await super().start(release)

    async with deploying(tmp_path, Counting()) as deployer:
        await activated(deployer, GOOD.digest)
        await activated(deployer, NEXT.digest)
        assert deployer.serving().release.digest == NEXT.digest
    assert running == [0, 0]


@pytest.mark.parametrize(("budget_bytes", "between"), [(10_000, [None]), (2**40, [])])
async def test_a_release_is_announced_once_however_long_its_probation_is(
    tmp_path: Path, budget_bytes: int, between: list[None]
) -> None:
    announced: list[str | None] = []

    async def announce(serving: ServingRelease | None) -> None:
        announced.append(None if serving is None else serving.release.digest)

    options = {"budget_bytes": budget_bytes, "probation_seconds": 0.01, "on_serving": announce}
    async with deploying(tmp_path, Script(), **options) as deployer:
        await activated(deployer, GOOD.digest)
        await activated(deployer, NEXT.digest)
        assert announced == [GOOD.digest, *between, NEXT.digest]


async def test_a_release_with_other_tokens_rolls_back_and_is_denied(tmp_path: Path) -> None:
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        script.tokens = (1, 2, 3)
        steps = await activated(deployer, NEXT.digest)
        failed = [probe for step in steps for probe in step.probes if not probe.passed]
        assert {probe.name for probe in failed} == {"golden_prompt"}
        assert deployer.state.outcome is ChangeOutcome.ROLLED_BACK
        assert deployer.state.active == deployer.serving().release.digest == GOOD.digest
        assert NEXT.digest in deployer.state.denied


@pytest.mark.parametrize(
    ("tokens", "leads", "outcome"),
    [
        ((5, 9, 9), (4.0, 0.2, 4.0), ChangeOutcome.COMMITTED),  # behind a near tie anything may come
        ((5, 6, 9), (4.0, 4.0, 0.2), ChangeOutcome.COMMITTED),
        ((9, 6, 7), (4.0, 0.2, 0.2), ChangeOutcome.ROLLED_BACK),  # the first one was certain
        ((5, 6, 9), (4.0, 0.2, 4.0), ChangeOutcome.ROLLED_BACK),  # the tie went as on the host
    ],
)
async def test_a_board_that_decides_a_near_tie_otherwise_keeps_the_release(
    tmp_path: Path, tokens: tuple[int, ...], leads: tuple[float, ...], outcome: ChangeOutcome
) -> None:
    script = Script()
    golden = {"prompt": "p", "tokens": list(TOKENS), "leads": list(leads)}
    led = make_artifact(version="3.0", golden=golden)
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        stage(deployer._store, led)
        script.tokens = tokens
        await activated(deployer, led.digest)
        assert deployer.state.outcome is outcome


async def test_a_release_over_the_budget_rolls_back(tmp_path: Path) -> None:
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        script.peak_bytes = 10_001
        await activated(deployer, NEXT.digest)
        assert deployer.state.outcome is ChangeOutcome.ROLLED_BACK
        assert deployer.state.active == GOOD.digest


async def test_an_engine_that_does_not_start_is_tried_a_few_times_only(tmp_path: Path) -> None:
    script = Script(refuse={NEXT.digest})
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        steps = await activated(deployer, NEXT.digest)
        assert max(step.state.attempts for step in steps) == ATTEMPTS_MAX
        assert deployer.serving().release.digest == GOOD.digest


async def test_a_first_release_that_fails_leaves_the_board_as_it_was(tmp_path: Path) -> None:
    async with deploying(tmp_path, Script(refuse={GOOD.digest})) as deployer:
        await activated(deployer, GOOD.digest)
        state = deployer.state
        assert (state.phase, state.outcome, state.active) == (Phase.IDLE, ChangeOutcome.FAILED, None)


async def test_when_nothing_starts_the_board_is_safe_and_stays_so(tmp_path: Path) -> None:
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        script.refuse = {GOOD.digest, NEXT.digest}
        await activated(deployer, NEXT.digest)
        assert deployer.state.phase is Phase.SAFE
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        assert deployer.state.phase is Phase.SAFE
        assert script.engines == []
        await deployer.roll_back()
        await at_rest(deployer)
        assert deployer.serving().release.digest == GOOD.digest


async def test_an_engine_that_dies_during_probation_rolls_back(tmp_path: Path) -> None:
    script = Script()
    async with deploying(tmp_path, script, probation_seconds=30.0) as deployer:
        await deployer.activate(GOOD.digest)
        for _ in range(ATTEMPTS_MAX):
            await kill_on_probation(deployer, script)
        await at_rest(deployer)
        assert deployer.state.outcome is ChangeOutcome.FAILED
        assert "during probation" in deployer.state.message


async def test_an_engine_that_dies_of_a_probe_is_told_with_how_it_ended(tmp_path: Path) -> None:
    script = Script()

    async def die_when_asked(what: str, release: StagedRelease) -> None:
        if what == "ask":
            script.running[-1].die()

    script.before = die_when_asked
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        assert "Probe golden_prompt failed" in deployer.state.message
        assert "The engine ended during probation: killed (signal 9)" in deployer.state.message


async def test_an_engine_that_still_answers_while_it_dies_of_a_probe_is_told_with_how_it_ended(
    tmp_path: Path,
) -> None:
    script = Script()

    async def fail_when_asked_and_die(what: str, release: StagedRelease) -> None:
        if what == "ask":
            asyncio.get_running_loop().call_later(0.05, script.running[-1].die)
            raise OutsideError("The engine's core is gone.", Reason.REASON_ENGINE_FAILED)

    script.before = fail_when_asked_and_die
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        assert "The engine ended during probation: killed (signal 9)" in deployer.state.message


@pytest.mark.parametrize("fault", [{"tokens": (1, 2, 3)}, {"peak_bytes": 10_001}])
async def test_the_death_of_an_engine_that_answers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    monkeypatch.setattr(activation, "DEATH_SECONDS_MAX", 1e6)
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        for name, value in fault.items():
            setattr(script, name, value)
        await activated(deployer, NEXT.digest)
        assert deployer.state.outcome is ChangeOutcome.ROLLED_BACK
        assert deployer.serving().release.digest == GOOD.digest


async def kill_on_probation(deployer: Deployer, script: Script) -> None:
    while not (deployer.state.phase is Phase.PROBATION and script.running):
        await asyncio.sleep(0.005)
    script.running[-1].die()
    while script.running:
        await asyncio.sleep(0.005)


async def test_a_release_that_rotted_since_it_was_staged_is_not_started(tmp_path: Path) -> None:
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        path = tmp_path / "releases" / GOOD.digest / "tree" / "engine" / "model.bin"
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        await activated(deployer, GOOD.digest)
        assert deployer.state.outcome is ChangeOutcome.FAILED
        assert script.engines == []


async def test_a_dead_engine_of_the_active_release_is_restarted(tmp_path: Path) -> None:
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        for count in (2, 3):
            script.running[0].die()
            while len(script.running) < 1 or len(script.engines) < count:
                await asyncio.sleep(0.005)
        assert deployer.state.active == GOOD.digest


async def test_the_active_release_serves_again_after_a_restart(tmp_path: Path) -> None:
    async with deploying(tmp_path, Script()) as deployer:
        await activated(deployer, GOOD.digest)
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        while not script.running:
            await asyncio.sleep(0.005)
        assert deployer.state.active == GOOD.digest


@pytest.mark.parametrize("attempts", range(ATTEMPTS_MAX + 1))
@pytest.mark.parametrize("phase", [Phase.ACTIVATING, Phase.PROBATION, Phase.ROLLING_BACK])
async def test_an_agent_killed_during_a_change_ends_it_at_the_next_start(
    tmp_path: Path, phase: Phase, attempts: int
) -> None:
    async with deploying(tmp_path, Script()) as deployer:
        await activated(deployer, GOOD.digest)
        state = deployer.state
    candidate = GOOD.digest if phase is Phase.ROLLING_BACK else NEXT.digest
    killed = State(**{**vars(state), "phase": phase, "candidate": candidate, "attempts": attempts})
    file = StateFile(FileSystem(), tmp_path / "state.json")
    file.read()
    file.write(killed.to_json())
    async with deploying(tmp_path, Script()) as deployer:
        await at_rest(deployer)
        spent = attempts == ATTEMPTS_MAX
        if phase is Phase.ROLLING_BACK:
            assert deployer.state.active == (None if spent else GOOD.digest)
        else:
            assert deployer.state.active == (GOOD.digest if spent else NEXT.digest)


async def test_a_board_that_lost_its_state_waits_for_an_operator(tmp_path: Path) -> None:
    async with deploying(tmp_path, Script()) as deployer:
        await activated(deployer, GOOD.digest)
    for name in ("state.json", "state.json.prev"):
        (tmp_path / name).write_bytes(b"{")
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        assert deployer.state.phase is Phase.SAFE
        assert script.engines == []
        await activated(deployer, GOOD.digest)
        assert deployer.state.outcome is ChangeOutcome.COMMITTED


async def test_each_attempt_is_on_disk_before_its_engine_starts(tmp_path: Path) -> None:
    on_disk: list[int] = []

    class Looking(Script):
        async def start(self, release: StagedRelease) -> Any:
            saved = StateFile(FileSystem(), tmp_path / "state.json").read()
            assert saved is not None
            on_disk.append(saved["attempts"])
            return await super().start(release)

    async with deploying(tmp_path, Looking(refuse={GOOD.digest})) as deployer:
        await activated(deployer, GOOD.digest)
    assert on_disk == [1, 2, 3]

"""Requests that bring an engine down: it is started again, and no client decides which release serves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import EdgewrightError
from edgewright_agent.deployment import activation
from edgewright_agent.deployment.activation_rules import ATTEMPTS_MAX, STARTS_MAX
from edgewright_agent.deployment.deployer import Deployer
from edgewright_agent.deployment.engine_manager import ServingRelease
from edgewright_agent.deployment.state import ChangeOutcome, Phase
from edgewright_agent.engines import DeathCause, GenerationRequest
from edgewright_agent.store import StagedRelease
from tests.agent.deployment.test_deployer import GOOD, NEXT, activated, at_rest, deploying
from tests.support.scripted_engine import Script, ScriptedEngine

REQUEST = GenerationRequest(prompt="p", max_tokens=10_000)


@contextlib.asynccontextmanager
async def a_client(deployer: Deployer) -> AsyncIterator[ScriptedEngine]:
    """Somebody whose request is being answered; the engine that answers it."""
    serving = await answering(deployer)
    assert isinstance(serving.engine, ScriptedEngine)
    async with serving.slots.admit():
        tokens = serving.engine.generate(REQUEST)
        await anext(tokens)
        yield serving.engine
        await tokens.aclose()


class Probation:
    """A probation that lasts until the test ends it, however slow the machine is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trials = 0  # begun
        self.over = asyncio.Event()
        self._real = activation._sit_out
        monkeypatch.setattr(activation, "_sit_out", self._sit_out)

    async def _sit_out(self, serving: ServingRelease, seconds: float) -> None:
        self.trials += 1
        dying = asyncio.create_task(self._real(serving, 3600.0))
        ending = asyncio.create_task(self.over.wait())
        try:
            await asyncio.wait((dying, ending), return_when=asyncio.FIRST_COMPLETED)
            if dying.done():
                await dying
        finally:
            for task in (dying, ending):
                task.cancel()
            await asyncio.gather(dying, ending, return_exceptions=True)


async def answering(deployer: Deployer) -> ServingRelease:
    await until(lambda: serves_at_all(deployer))
    return deployer.serving()


def serves_at_all(deployer: Deployer) -> bool:
    try:
        deployer.serving()
    except EdgewrightError:
        return False
    return True


async def until(condition: Any) -> None:
    deadline = asyncio.get_running_loop().time() + 60
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come to that"
        await asyncio.sleep(0.001)


async def test_an_active_release_whose_engine_requests_kill_again_and_again_stays_active(
    tmp_path: Path,
) -> None:
    script = Script(pause_seconds=0.001)
    async with deploying(tmp_path, script, restart_seconds=0.001) as deployer:
        await activated(deployer, GOOD.digest)
        await activated(deployer, NEXT.digest)
        for number in range(STARTS_MAX + 5):
            async with a_client(deployer) as engine:
                engine.die()
            await until(lambda count=number: len(script.engines) > count + 2)
        assert deployer.state.active == (await answering(deployer)).release.digest == NEXT.digest
        assert deployer.state.starts <= 1
        (note,) = deployer.notes()
        assert f"started again {STARTS_MAX + 5} times" in note
        assert "last words" in note


async def test_an_active_release_whose_engine_dies_by_itself_gives_way(tmp_path: Path) -> None:
    async with deploying(tmp_path, Script(), restart_seconds=0.001) as deployer:
        await activated(deployer, GOOD.digest)
        await activated(deployer, NEXT.digest)
        for _ in range(STARTS_MAX + 1):
            engine = (await answering(deployer)).engine
            if (await answering(deployer)).release.digest == GOOD.digest:
                break
            assert isinstance(engine, ScriptedEngine)
            engine.die()
            await until(
                lambda dead=engine: deployer._engines.serving is None or deployer.serving().engine is not dead
            )
        await until(lambda: deployer.state.active == GOOD.digest)


@pytest.mark.parametrize("cause", [DeathCause.KILLED, DeathCause.HUNG])
async def test_a_client_that_leaves_before_the_engine_falls_over_its_request_decides_nothing(
    tmp_path: Path, cause: DeathCause
) -> None:
    script = Script(pause_seconds=0.001)
    async with deploying(tmp_path, script, restart_seconds=0.001) as deployer:
        await activated(deployer, GOOD.digest)
        await activated(deployer, NEXT.digest)
        for number in range(STARTS_MAX + 5):
            async with a_client(deployer) as engine:
                pass
            engine.die(cause)
            await until(lambda count=number: len(script.engines) > count + 2)
        assert deployer.state.active == (await answering(deployer)).release.digest == NEXT.digest


async def test_an_engine_that_hangs_over_a_request_is_started_again_and_says_why(tmp_path: Path) -> None:
    async with deploying(tmp_path, Script(pause_seconds=0.001), restart_seconds=0.001) as deployer:
        await activated(deployer, GOOD.digest)
        async with a_client(deployer) as engine:
            engine.die(DeathCause.HUNG)
        await until(lambda: deployer.notes())
        assert (await answering(deployer)).engine is not engine
        assert "hung" in deployer.notes()[0]


async def activated_in_probation(deployer: Deployer, probation: Probation) -> None:
    """Leaves the board with `GOOD` active and `NEXT` serving on probation."""
    probation.over.set()
    await activated(deployer, GOOD.digest)
    probation.over.clear()
    await deployer.activate(NEXT.digest)
    await until(lambda: probation.trials == 2)
    assert deployer.serving().release.digest == NEXT.digest


async def test_a_candidate_that_clients_kill_during_probation_is_tried_again_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, probation = Script(pause_seconds=0.001), Probation(monkeypatch)
    async with deploying(tmp_path, script, probation_seconds=0.3) as deployer:
        await activated_in_probation(deployer, probation)
        async with a_client(deployer) as engine:
            engine.die()
        await until(lambda: probation.trials == 3)
        with pytest.raises(EdgewrightError):  # it is alone: nobody can kill it any more
            deployer.serving()
        probation.over.set()
        await at_rest(deployer)
        assert (deployer.state.outcome, deployer.state.active) == (ChangeOutcome.COMMITTED, NEXT.digest)
        assert (await answering(deployer)).release.digest == NEXT.digest


async def test_a_candidate_that_dies_alone_too_is_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, probation = Script(pause_seconds=0.001), Probation(monkeypatch)
    async with deploying(tmp_path, script, probation_seconds=0.2) as deployer:
        await activated_in_probation(deployer, probation)
        async with a_client(deployer) as engine:
            engine.die()
        for trial in range(ATTEMPTS_MAX):
            await until(lambda count=trial: probation.trials == count + 3)
            script.engines[-1].die()
        await at_rest(deployer)
        assert deployer.state.active == GOOD.digest
        assert NEXT.digest in deployer.state.denied
        assert [engine.release.digest for engine in script.engines].count(NEXT.digest) == ATTEMPTS_MAX + 1


async def test_memory_that_clients_took_is_not_held_against_the_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, probation = Script(pause_seconds=0.001), Probation(monkeypatch)

    async def need_little_again(what: str, release: StagedRelease) -> None:
        if what == "start" and len(script.engines) == 2:
            script.peak_bytes = 1000

    script.before = need_little_again
    async with deploying(tmp_path, script, probation_seconds=0.3) as deployer:
        await activated_in_probation(deployer, probation)
        async with a_client(deployer):
            script.peak_bytes = 10_001
            probation.over.set()
            await until(lambda: len(script.engines) == 3)
        await at_rest(deployer)
        assert (deployer.state.outcome, deployer.state.active) == (ChangeOutcome.COMMITTED, NEXT.digest)


async def test_a_candidate_that_clients_kill_while_it_waits_to_be_confirmed_goes_on_waiting(
    tmp_path: Path,
) -> None:
    script = Script(pause_seconds=0.001)
    async with deploying(tmp_path, script, restart_seconds=0.001) as deployer:
        await activated(deployer, GOOD.digest)
        await deployer.activate(NEXT.digest, confirm_within_seconds=60.0)
        await until(lambda: deployer.state.awaiting_confirmation)
        for number in range(12):  # more often than a change may have transitions
            async with a_client(deployer) as engine:
                engine.die()
            await until(lambda count=number: len(script.engines) > count + 2)
        assert (deployer.state.phase, deployer.state.candidate) == (Phase.PROBATION, NEXT.digest)
        assert (await answering(deployer)).release.digest == NEXT.digest
        await deployer.confirm(NEXT.digest)
        await at_rest(deployer)
        assert deployer.state.active == NEXT.digest


async def test_a_candidate_that_dies_by_itself_while_it_waits_is_not_kept(tmp_path: Path) -> None:
    script = Script()
    async with deploying(tmp_path, script, restart_seconds=0.001) as deployer:
        await activated(deployer, GOOD.digest)
        await deployer.activate(NEXT.digest, confirm_within_seconds=60.0)
        for _ in range(ATTEMPTS_MAX):
            await until(lambda: deployer.state.awaiting_confirmation)
            script.engines[-1].die()
            await until(lambda: not deployer.state.awaiting_confirmation)
        await at_rest(deployer)
        assert deployer.state.active == GOOD.digest


async def test_clients_load_does_not_decide_a_candidates_probes(tmp_path: Path) -> None:
    script = Script()
    async with deploying(tmp_path, script) as deployer:
        await activated(deployer, GOOD.digest)
        asked: list[bool] = []

        async def before(what: str, release: StagedRelease) -> None:
            if what == "ask" and release.digest == NEXT.digest:
                asked.append(deployer._engines.serving is not None)

        script.before = before
        await activated(deployer, NEXT.digest)
        assert asked
        assert not any(asked)

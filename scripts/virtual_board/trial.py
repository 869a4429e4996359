"""The whole table: boot, install, push, use, measure; then reboot, break, roll back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virtual_board.agent import Agent
from virtual_board.faults import check_faults, doctor
from virtual_board.machine import Machine
from virtual_board.needs import NeedError
from virtual_board.sensors.device_trees import BOARDS
from virtual_board.sensors.trial import hold, load_drivers
from virtual_board.settings import BUDGET, CPU, CPUS, MEMORY_MIB, SOURCES

UNIT = "edgewright-agent"
QUIZ = SOURCES / "examples/ticket_routing_quiz.jsonl"
BOARD = BOARDS["orin-nano"]  # that the board calls itself where its sensors are built
WATTS = 5.0  # that its sensors say
IDLE_SECONDS = 30
SECTOR_BYTES = 512


@dataclass
class Table:
    """What was tried, how long it took, and what came out."""

    say: Callable[[str], None]
    rows: list[tuple[str, float, str]] = field(default_factory=list)

    @contextmanager
    def row(self, what: str) -> Iterator[list[str]]:
        """Times a step; the step appends what it saw."""
        seen: list[str] = []
        began = time.monotonic()
        yield seen
        self.rows.append((what, time.monotonic() - began, ", ".join(seen)))
        self.say(f"{what}: {self.rows[-1][1]:.0f} s, {self.rows[-1][2]}")

    def markdown(self) -> str:
        """Returns the table."""
        lines = [f"| {what} | {seconds:.0f} | {seen} |" for what, seconds, seen in self.rows]
        return "\n".join(["| step | seconds | seen |", "|---|--:|---|", *lines])


def run_trial(machine: Machine, agent: Agent, artifacts: list[Path], say: Callable[[str], None]) -> Table:
    """Runs the trial on a board that is off; with a second artifact a roll-back too. Raises NeedError."""
    table = Table(say)
    first_boot(machine, agent, artifacts[0], table)
    machine.power_off()
    second_boot(machine, agent, artifacts, table)
    return table


def first_boot(machine: Machine, agent: Agent, artifact: Path, table: Table) -> None:
    """Installs, pushes, uses and measures."""
    with table.row(f"boot ({CPU}, {CPUS} cores, {MEMORY_MIB} MiB)") as seen:
        machine.boot()
        seen.append(machine.must("uname -rm"))
    with table.row("keys, unit, start") as seen:
        agent.set_up("this-host", f'"--budget {BUDGET}"')
        agent.wait()
        seen.append(_unit(machine))
    with table.row(f"at rest, {IDLE_SECONDS} s, without a release") as seen:
        seen += _rest(machine)
    _push(machine, agent, artifact, table)
    with table.row("generate 16 tokens") as seen:
        seen.append(agent.call("generate", agent.address, "Water is", "--max-tokens", "16").strip()[:80])
    with table.row("score 3 questions") as seen:
        told = json.loads(
            agent.call("eval", agent.address, "--tasks", str(QUIZ), "--limit", "3", "--json", seconds=1800)
        )
        seen += [f"{each['task']}: {each['accuracy']:.0%} of {each['rows']}" for each in told["results"]]
    if machine.device_tree is not None:
        _energy(machine, agent, table)
    with table.row(f"at rest, {IDLE_SECONDS} s, serving") as seen:
        seen += _rest(machine)
        seen.append(f"telemetry is {len(agent.call('telemetry', agent.address, '--json'))} bytes of JSON")


def second_boot(machine: Machine, agent: Agent, artifacts: list[Path], table: Table) -> None:
    """Boots again, breaks one thing after another, and rolls back."""
    with table.row("boot again, until the release answers") as seen:
        machine.boot()
        agent.wait()
        seen.append(agent.call("generate", agent.address, "Water is", "--max-tokens", "4").strip()[:60])
    with table.row("doctor, with the engines tried") as seen:
        healthy = doctor(machine)
        counts = {result: list(healthy.values()).count(result) for result in ("ok", "warning", "problem")}
        seen.append(", ".join(f"{count} {result}" for result, count in counts.items()))
        seen += [f"{result}: {name}" for name, result in healthy.items() if result != "ok"]
    with table.row("doctor, with things broken on purpose") as seen:
        seen.append(f"each is seen, and nothing else: {'; '.join(check_faults(machine, healthy))}")
    _run_out_of_memory(machine, agent, table)
    _hang(machine, agent, table)
    if len(artifacts) > 1:
        with table.row("second release, then roll back") as seen:
            agent.call("push", str(artifacts[1]), agent.address)
            agent.call("rollback", agent.address)
            seen.append(f"serves {_active(agent)}")


def _push(machine: Machine, agent: Agent, artifact: Path, table: Table) -> None:
    with table.row("push over mTLS, probes, commit") as seen:
        before = _flash_bytes(machine)
        result = json.loads(agent.call("push", str(artifact), agent.address, "--json"))
        written = _flash_bytes(machine) - before
        size = sum(file.stat().st_size for file in artifact.rglob("*") if file.is_file())
        seen.append(f"{result['sent_bytes'] / 2**20:.1f} MiB sent, {result['verdict']['outcome']}")
        seen.append(f"{written / 2**20:.1f} MiB to flash, {written / size:.3f} of the artifact")
        seen += [
            f"{probe['name']}: {probe['detail']}"
            for probe in result["verdict"]["probes"]
            if probe["required"]
        ]


def _energy(machine: Machine, agent: Agent, table: Table) -> None:
    """The sensors say one power all the time, so that joules per token follow from the seconds that the run took."""
    with table.row(f"bench, the kernel's INA3221 at {WATTS:g} W") as seen:
        load_drivers(machine, BOARD)
        hold(machine, BOARD, WATTS)
        time.sleep(3)  # the agent looks for sensors once a second
        load = ("--prompts", "2", "--input", "16", "--output", "8", "--warmup", "0", "--host-prompts", "0")
        run = json.loads(agent.call("bench", agent.address, *load, "--json", seconds=1800))["runs"][0]
        seen += _energy_figures(run)


def _energy_figures(run: dict[str, Any]) -> list[str]:
    energy, tokens = run["energy"], run["output_tokens"] * run["prompts"]
    counted = None if energy is None else energy["gross_joules_per_output_token"]
    if counted is None:
        raise NeedError(f"The benchmark has no joules: {energy}")
    expected = WATTS * run["duration_seconds"] / tokens
    return [
        f"{energy['rail']}: {counted:.3f} J per token, {expected:.3f} were set ({counted / expected - 1:+.2%})"
    ]


def _run_out_of_memory(machine: Machine, agent: Agent, table: Table) -> None:
    with table.row("engine killed for memory by its cgroup, until it answers again") as seen:
        groups = f"/sys/fs/cgroup/system.slice/{UNIT}.service/edgewright-engine-*"
        machine.must(f"for group in {groups}; do echo 40M > $group/memory.max; done")
        until = time.monotonic() + 300
        while not (
            said := machine.run(
                f"journalctl -u {UNIT} --no-pager -g 'out of memory' -n 1 -o cat"
            ).output.strip()
        ):
            if time.monotonic() > until:
                raise NeedError("The agent says nothing of an engine that was killed for memory.")
            time.sleep(2)
        seen.append(said[:200])
        agent.call("generate", agent.address, "Water is", "--max-tokens", "2")
        restarts = machine.must(f"systemctl show -P NRestarts {UNIT}")
        seen.append(f"restarted by the agent, which was restarted {restarts} times")


def _hang(machine: Machine, agent: Agent, table: Table) -> None:
    with table.row("agent stopped for longer than its watchdog") as seen:
        before = machine.must(f"systemctl show -P NRestarts {UNIT}")
        machine.must(f"kill -STOP $(systemctl show -P MainPID {UNIT})")
        until = time.monotonic() + 600
        while machine.must(f"systemctl show -P NRestarts {UNIT}") == before:
            if time.monotonic() > until:
                raise NeedError("systemd does not restart an agent that hangs.")
            time.sleep(5)
        agent.wait()
        seen.append(machine.must(f"journalctl -u {UNIT} --no-pager -g atchdog -n 1 -o cat"))


def _unit(machine: Machine) -> str:
    shown = machine.must(
        f"systemctl show {UNIT} -p Type,NotifyAccess,WatchdogUSec,User,Delegate,ActiveState --value"
    )
    return " ".join(shown.split())


def _rest(machine: Machine) -> list[str]:
    """Returns the agent's memory after a while of rest, and what went to flash meanwhile."""
    before = _flash_bytes(machine)
    time.sleep(IDLE_SECONDS)
    written = _flash_bytes(machine) - before
    memory = machine.must(
        f"grep -E '^(Rss|Pss|AnonHuge)' /proc/$(systemctl show -P MainPID {UNIT})/smaps_rollup"
    )
    kib = {line.split(":")[0]: int(line.split()[1]) for line in memory.splitlines()}
    return [f"agent {kib['Rss'] / 1024:.1f} MiB resident", f"{written / 1024:.0f} KiB to flash"]


def _flash_bytes(machine: Machine) -> int:
    """Syncs; returns what has been written to the store's disk since the boot, by the kernel's counter."""
    counters = machine.must(
        "sync; cat /sys/class/block/$(basename $(findmnt -no SOURCE /var/lib/edgewright))/stat"
    )
    return int(counters.split()[6]) * SECTOR_BYTES


def _active(agent: Agent) -> str:
    return str(json.loads(agent.call("status", agent.address, "--json")).get("active_release", ""))[:12]

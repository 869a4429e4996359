"""The whole table: boot, install, push, use, measure, roll back, reboot."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from virtual_board.agent import Agent
from virtual_board.machine import Machine
from virtual_board.settings import CPU, CPUS, MEMORY_MIB

UNIT = "edgewright-agent"


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
    with table.row(f"boot ({CPU}, {CPUS} cores, {MEMORY_MIB} MiB)") as seen:
        machine.boot()
        seen.append(machine.must("uname -rm"))
    with table.row("keys, unit, start") as seen:
        agent.set_up("this-host", '"--budget 360MiB"')
        agent.wait()
        seen.append(_unit(machine))
    _serve(machine, agent, artifacts[0], table)
    if len(artifacts) > 1:
        with table.row("second release, then roll back") as seen:
            agent.call("push", str(artifacts[1]), agent.address)
            agent.call("rollback", agent.address)
            seen.append(f"serves {_active(agent)}")
    with table.row("reboot, until the release answers") as seen:
        machine.power_off()
        machine.boot()
        agent.wait()
        seen.append(agent.call("generate", agent.address, "Water is", "--max-tokens", "4").strip()[:60])
    with table.row("doctor") as seen:
        reply = machine.run("edgewright-agent doctor --listen 127.0.0.1:7444", seconds=600)
        seen += [reply.output.strip().splitlines()[-1], f"exit code {reply.code}"]
    _break(machine, agent, table)
    return table


def _serve(machine: Machine, agent: Agent, artifact: Path, table: Table) -> None:
    with table.row("push over mTLS, probes, commit") as seen:
        result = json.loads(agent.call("push", str(artifact), agent.address, "--json"))
        seen.append(f"{result['sent_bytes'] / 2**20:.1f} MiB sent, {result['verdict']['outcome']}")
        seen += [
            f"{probe['name']}: {probe['detail']}"
            for probe in result["verdict"]["probes"]
            if probe["required"]
        ]
    with table.row("generate 16 tokens") as seen:
        seen.append(agent.call("generate", agent.address, "Water is", "--max-tokens", "16").strip()[:80])
    with table.row("telemetry") as seen:
        seen.append(f"{len(agent.call('telemetry', agent.address, '--json'))} bytes of JSON")
        seen.append(f"agent {_resident(machine)} MiB resident")


def _break(machine: Machine, agent: Agent, table: Table) -> None:
    with table.row("engine killed as for memory, until it answers again") as seen:
        machine.must("pkill -KILL -f '[e]ngine_worker'")
        agent.call("generate", agent.address, "Water is", "--max-tokens", "2")
        seen.append("restarted by the agent")
    with table.row("agent stopped for longer than its watchdog") as seen:
        before = machine.must(f"systemctl show -P NRestarts {UNIT}")
        machine.must(f"kill -STOP $(systemctl show -P MainPID {UNIT})")
        while machine.must(f"systemctl show -P NRestarts {UNIT}") == before:
            time.sleep(5)
        agent.wait()
        seen.append(machine.must(f"journalctl -u {UNIT} --no-pager -g atchdog -n 1 -o cat"))


def _unit(machine: Machine) -> str:
    shown = machine.must(
        f"systemctl show {UNIT} -p Type,NotifyAccess,WatchdogUSec,User,Delegate,ActiveState --value"
    )
    group = machine.must(f"cat /sys/fs/cgroup/system.slice/{UNIT}.service/cgroup.subtree_control || true")
    return f"{' '.join(shown.split())}; controllers handed down: {group or 'none yet'}"


def _active(agent: Agent) -> str:
    return str(json.loads(agent.call("status", agent.address, "--json")).get("active_release", ""))[:12]


def _resident(machine: Machine) -> str:
    return machine.must(
        f"awk '/VmRSS/ {{print int($2 / 1024)}}' /proc/$(systemctl show -P MainPID {UNIT})/status"
    )

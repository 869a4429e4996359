"""What is broken on a board on purpose, and whether `edgewright-agent doctor` is right about each."""

from __future__ import annotations

import json
from dataclasses import dataclass

from virtual_board.machine import Machine
from virtual_board.needs import NeedError
from virtual_board.settings import BUDGET

ETC, STORE = "/etc/edgewright", "/var/lib/edgewright"
OPTIONS = f"--profile this-host --budget {BUDGET}"
FREE_PORT = "--listen 127.0.0.1:7444"  # the agent has its own
MEASURED = {"disk speed", "memory"}  # differ from run to run


@dataclass(frozen=True)
class Fault:
    """How something is broken and mended, and the checks that must see it."""

    what: str
    break_command: str
    mend_command: str
    checks: frozenset[str]


def fault(what: str, break_command: str, mend_command: str, *checks: str) -> Fault:
    """Returns a fault."""
    return Fault(what, break_command, mend_command, frozenset(checks))


# Each list is broken together and asked about once: a doctor's run takes half a minute under emulation.
TOGETHER = (
    (
        fault("a key that all may read", f"chmod 644 {ETC}/agent.key", f"chmod 600 {ETC}/agent.key", "key mode"),
        fault("the authority's key on the board", f"cp {ETC}/agent.key {ETC}/ca.key", f"rm {ETC}/ca.key", "secrets"),
        fault(
            "a rotten file", f"touch {STORE}/quarantine/rotten", f"rm {STORE}/quarantine/rotten", "quarantine"
        ),
        fault(
            "a full disk",
            f"fallocate -l $(($(stat -f -c '%a*%S' {STORE}) - 50000000)) {STORE}/fill",
            f"rm {STORE}/fill",
            "disk space",
        ),
        fault(
            "a desktop",
            "systemctl set-default graphical.target",
            "rm /etc/systemd/system/default.target",
            "desktop",
        ),
    ),
    (
        fault(
            "a clock that was never set",
            "date +%s > /run/now; date -s 2001-01-01",
            "date -s @$(cat /run/now)",
            "clock",
            "certificates",
        ),
        fault(
            "another board's key",
            f"mv {ETC}/agent.key {ETC}/kept.key; cp {ETC}/agent.pem {ETC}/agent.key; chmod 600 {ETC}/agent.key",
            f"mv {ETC}/kept.key {ETC}/agent.key",
            "tls files",
        ),
        fault(
            "a damaged key of releases",
            f"mv {ETC}/release.pub {ETC}/kept.pub; echo none > {ETC}/release.pub",
            f"mv {ETC}/kept.pub {ETC}/release.pub",
            "trust",
        ),
        fault("a store that its user may not write", f"chmod 500 {STORE}", f"chmod 700 {STORE}", "store"),
    ),
)  # fmt: skip


def doctor(machine: Machine, options: str = FREE_PORT) -> dict[str, str]:
    """Returns what each check says: ok, warning or problem."""
    reply = machine.run(f"edgewright-agent doctor --json {OPTIONS} {options}", seconds=900)
    if "{" not in reply.output:
        raise NeedError(f"The doctor ended with {reply.code}: {reply.output[-500:]}")
    findings = json.loads(reply.output[reply.output.index("{") :])["findings"]
    return {each["check"]: each["result"] for each in findings}


def check_faults(machine: Machine, healthy: dict[str, str]) -> list[str]:
    """Breaks, asks and mends; returns what was broken. Raises NeedError where the doctor is wrong."""
    for faults in TOGETHER:
        for each in faults:
            machine.must(each.break_command)
        try:
            seen = doctor(machine, f"{FREE_PORT} --no-engines")
        finally:
            for each in faults:
                machine.must(each.mend_command)
        changed = {name for name, result in seen.items() if result != healthy.get(name)} - MEASURED
        expected = frozenset[str]().union(*(each.checks for each in faults))
        if changed != expected:
            raise NeedError(f"The doctor sees {sorted(changed)} change, {sorted(expected)} were broken.")
    if doctor(machine, "--no-engines")["port"] == "ok":
        raise NeedError("The doctor calls the port free that the agent listens on.")
    return [each.what for faults in TOGETHER for each in faults] + ["a port that is taken"]

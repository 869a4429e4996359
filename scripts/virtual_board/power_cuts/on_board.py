"""Power cuts on a file system that only the board's kernel knows, such as f2fs: lived through and looked at there.

The board's data disk is logged by QEMU. What cuts would have left of it goes to another disk of the same board, one
image after the other, and a script there mounts each.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import edgewright as ew
from virtual_board.agent import Agent
from virtual_board.image import STORE_CHECK
from virtual_board.machine import Machine
from virtual_board.power_cuts.store_check import Survives
from virtual_board.power_cuts.study import Count
from virtual_board.power_cuts.workload import Timeline, artifacts, live
from virtual_board.power_cuts.write_log import cuts, flush_ends
from virtual_board.settings import Parts

DATA_MIB = 128
OPTIONS = '"--budget 2GiB --probation 0 --store-reserve 1MiB"'


def study_on_board(parts: Parts, file_system: str, cuts_max: int, say: Callable[[str], None]) -> list[Count]:
    """Returns the counts by step, of at most `cuts_max` cuts that lie evenly in the log."""
    machine = Machine(
        parts, parts.folder / "cuts", write_log=True, data_mib=DATA_MIB, scratch_mib=cuts_max * DATA_MIB
    )
    machine.prepare(file_system)
    base = machine.folder / "base"
    shutil.copyfile(machine.folder / "data", base)
    with tempfile.TemporaryDirectory(prefix="power-cuts-") as scratch:
        try:
            timeline = _live(machine, Path(scratch), say)
            return _look(machine, base, timeline, file_system, cuts_max, say)
        finally:
            machine.cut()


def _live(machine: Machine, folder: Path, say: Callable[[str], None]) -> Timeline:
    """Goes through the workload on the board."""
    keys = ew.Credentials.create(folder / "keys", ["127.0.0.1"]).folder
    models = artifacts(folder / "artifacts", keys)
    say(f"booted in {machine.boot():.0f} s")
    agent, log = Agent(machine, keys), machine.folder / "writes"
    agent.set_up("this-host", f"{OPTIONS}\\nEDGEWRIGHT_FAKE_ENGINE=1")
    agent.wait()
    with ew.Board(agent.address, credentials=keys) as board:
        steps = live(board, keys, models, lambda: log.stat().st_size)
    machine.must("systemctl stop edgewright-agent; sync")
    timeline = Timeline(steps, flush_ends(log))
    say(
        f"{len(steps) - 1} steps, {log.stat().st_size / 2**20:.1f} MiB, {len(timeline.flush_ends) - 1} flushes"
    )
    return timeline


def _look(
    machine: Machine, base: Path, timeline: Timeline, file_system: str, cuts_max: int,
    say: Callable[[str], None],
) -> list[Count]:  # fmt: skip
    every = -(-2 * len(timeline.flush_ends) // cuts_max)
    steps: list[int] = []
    for number, cut in enumerate(cuts(base, machine.folder / "writes", machine.folder / "work", every=every)):
        if number == cuts_max:
            break
        place = ["bs=1M", f"seek={number * DATA_MIB}", "conv=sparse,notrunc", "status=none"]
        target = machine.folder / "scratch"
        subprocess.run(["dd", f"if={cut.image}", f"of={target}", *place], check=True)
        steps.append(timeline.done(cut.log_end))
    lost = _lost(machine, file_system, [timeline.allowed(done) for done in steps])
    counts: dict[str, list[int]] = {}
    for done, why in zip(steps, lost, strict=True):
        count = counts.setdefault(timeline.under_way(done), [0, 0])
        count[0] += 1
        count[1] += why is not None
        if why is not None:
            say(f"{file_system}, after {timeline.steps[done].name}: {why}")
    return [Count(file_system, name, tried, 0, gone) for name, (tried, gone) in counts.items()]


def _lost(machine: Machine, file_system: str, allowed: list[list[Survives]]) -> list[str | None]:
    cuts_as_json = json.dumps([[asdict(each) for each in some] for some in allowed])
    arguments = [
        "/dev/vdc", file_system, str(DATA_MIB * 2**20), "/etc/edgewright/release.pub", cuts_as_json,
    ]  # fmt: skip
    script = f"/opt/edgewright/bin/python3 /usr/local/lib/{STORE_CHECK.name} {shlex.join(arguments)}"
    reply = machine.must(script, seconds=3600)
    why: list[str | None] = json.loads(reply.splitlines()[-1])
    return why

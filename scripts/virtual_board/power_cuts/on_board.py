"""Power cuts on a file system that only the board's kernel knows, such as f2fs: lived through and looked at there.

One board lives through the workload, and QEMU logs its data disk. What cuts would have left of that goes to a disk of
a second board, one image after the other, and a script there mounts each. An interrupted study goes on where it was.
"""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import edgewright as ew
from virtual_board.agent import Agent
from virtual_board.image import STORE_CHECK
from virtual_board.machine import Machine
from virtual_board.power_cuts.store_check import Survives
from virtual_board.power_cuts.study import Count
from virtual_board.power_cuts.workload import Step, Timeline, artifacts, live
from virtual_board.power_cuts.write_log import cuts, flush_ends
from virtual_board.settings import BUDGET, Parts

DATA_MIB = 128
BATCH = 10  # cuts that the board looks at in one go; what it said of them is kept
OPTIONS = f'"--budget {BUDGET} --probation 0 --store-reserve 1MiB"'
KEY = "/etc/edgewright/release.pub"


@dataclass(frozen=True)
class Progress:
    """What was lived through, and what was looked at so far."""

    file_system: str
    timeline: Timeline
    looked_at: list[tuple[int, str | None]]  # of each cut, the step before it, and why its store is lost
    cuts_max: int

    def save(self, file: Path) -> None:
        """Writes the file whole or not at all."""
        part = file.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)), encoding="utf-8")
        part.replace(file)


def load_progress(file: Path, file_system: str, cuts_max: int) -> Progress | None:
    """Returns what an interrupted study of the same kind saved; None if there is none."""
    if not file.exists():
        return None
    saved = json.loads(file.read_text(encoding="utf-8"))
    if (saved["file_system"], saved["cuts_max"]) != (file_system, cuts_max):
        return None
    steps = [
        Step(each["name"], each["log_bytes"], Survives(**each["after"]))
        for each in saved["timeline"]["steps"]
    ]
    looked_at = [(done, why) for done, why in saved["looked_at"]]
    return Progress(file_system, Timeline(steps, saved["timeline"]["flush_ends"]), looked_at, cuts_max)


def study_on_board(parts: Parts, file_system: str, cuts_max: int, say: Callable[[str], None]) -> list[Count]:
    """Returns the counts by step, of at most `cuts_max` cuts that lie evenly in the log."""
    folder = parts.folder / "cuts"
    progress = load_progress(folder / "progress.json", file_system, cuts_max)
    if progress is None:
        progress = _live(parts, folder, file_system, cuts_max, say)
    else:
        say(f"goes on after {len(progress.looked_at)} cuts; remove {folder} to begin anew")
    _look(parts, folder, progress, say)
    shutil.rmtree(folder)
    return counts_of(progress)


def _live(
    parts: Parts, folder: Path, file_system: str, cuts_max: int, say: Callable[[str], None]
) -> Progress:
    """Goes through the workload on a board."""
    machine = Machine(parts, folder, write_log=True, data_mib=DATA_MIB)
    machine.prepare(file_system)
    shutil.copyfile(folder / "data", folder / "base")
    log = folder / "writes"
    with tempfile.TemporaryDirectory(prefix="power-cuts-") as scratch:
        keys = ew.Credentials.create(Path(scratch, "keys"), ["127.0.0.1"]).folder
        models = artifacts(Path(scratch, "artifacts"), keys)
        try:
            say(f"booted in {machine.boot():.0f} s")
            agent = Agent(machine, keys)
            agent.set_up("this-host", f"{OPTIONS}\\nEDGEWRIGHT_FAKE_ENGINE=1")
            agent.wait()
            with ew.Board(agent.address, credentials=keys) as board:
                steps = live(board, keys, models, lambda: log.stat().st_size, say)
            machine.must("systemctl stop edgewright-agent; sync")
        finally:
            machine.cut()
        shutil.copyfile(keys / "release.pub", folder / "release.pub")
    progress = Progress(file_system, Timeline(steps, flush_ends(log)), [], cuts_max)
    progress.save(folder / "progress.json")
    flushes = len(progress.timeline.flush_ends) - 1
    say(f"{len(steps) - 1} steps, {log.stat().st_size / 2**20:.1f} MiB, {flushes} flushes")
    return progress


def _look(parts: Parts, folder: Path, progress: Progress, say: Callable[[str], None]) -> None:
    """Has a second board look at each cut, batch by batch."""
    size_mib = progress.cuts_max * DATA_MIB
    machine = Machine(parts, parts.folder / "cuts-looker", data_mib=DATA_MIB, scratch_mib=size_mib)
    machine.prepare()
    every = -(-2 * len(progress.timeline.flush_ends) // progress.cuts_max)
    chosen = islice(cuts(folder / "base", folder / "writes", folder / "work", every=every), progress.cuts_max)
    try:
        say(f"booted to look in {machine.boot():.0f} s")
        key = base64.b64encode((folder / "release.pub").read_bytes()).decode()
        machine.must(f"echo {key} | base64 -d > {KEY}")
        batch: list[int] = []
        for number, cut in enumerate(chosen):
            if number < len(progress.looked_at):
                continue
            place = ["bs=1M", f"seek={number * DATA_MIB}", "conv=sparse,notrunc", "status=none"]
            subprocess.run(["dd", f"if={cut.image}", f"of={machine.folder / 'scratch'}", *place], check=True)
            batch.append(progress.timeline.done(cut.log_end))
            if len(batch) == BATCH:
                _look_at(machine, progress, batch, say)
                progress.save(folder / "progress.json")
                batch = []
        if batch:
            _look_at(machine, progress, batch, say)
    finally:
        machine.cut()
    shutil.rmtree(machine.folder)


def _look_at(machine: Machine, progress: Progress, batch: list[int], say: Callable[[str], None]) -> None:
    """Has the board look at cuts, each after a step of that number, and adds what it says to the progress."""
    allowed = [[asdict(each) for each in progress.timeline.allowed(done)] for done in batch]
    first = len(progress.looked_at)
    arguments = [
        "/dev/vdc",
        progress.file_system,
        str(DATA_MIB * 2**20),
        str(first),
        KEY,
        json.dumps(allowed),
    ]
    script = f"/opt/edgewright/bin/python3 /usr/local/lib/{STORE_CHECK.name} {shlex.join(arguments)}"
    lost: list[str | None] = json.loads(machine.must(script, seconds=3600).splitlines()[-1])
    for done, why in zip(batch, lost, strict=True):
        progress.looked_at.append((done, why))
        if why is not None:
            say(f"{progress.file_system}, after {progress.timeline.steps[done].name}: {why}")
    say(f"{len(progress.looked_at)} cuts looked at")


def counts_of(progress: Progress) -> list[Count]:
    """Returns what was looked at, by the step that a cut came in."""
    counts: dict[str, list[int]] = {}
    for done, why in progress.looked_at:
        count = counts.setdefault(progress.timeline.under_way(done), [0, 0])
        count[0] += 1
        count[1] += why is not None
    return [Count(progress.file_system, name, tried, 0, gone) for name, (tried, gone) in counts.items()]

"""Lives through the workload on a logged disk, then looks at what each power cut would have left of it."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import edgewright as ew
from edgewright_builder.artifact.artifact import Artifact
from virtual_board.needs import check_programs, check_root
from virtual_board.power_cuts.logged_disk import FILE_SYSTEMS, logged_disk, mounted
from virtual_board.power_cuts.store_check import LostError, Survives, check_store
from virtual_board.power_cuts.workload import Step, Timeline, agent, artifacts, live, wait_for_rest
from virtual_board.power_cuts.write_log import Cut, cuts, flush_ends


@dataclass(frozen=True)
class Count:
    """What was tried during one step on one file system, and what was lost."""

    file_system: str
    step: str
    cuts: int
    resumed: int  # by an agent that was started on what the cut left, and then took a push
    lost: int


@dataclass(frozen=True)
class Extent:
    """How much is tried."""

    every: int = 1  # so-manieth flush is cut after
    resume_every: int = 100  # so-manieth cut is gone on from by an agent, which then takes a push


def study(file_system: str, extent: Extent, say: Callable[[str], None]) -> list[Count]:
    """Returns the counts by step. Raises NeedError where a program is missing, or this is not root."""
    check_programs("qemu-storage-daemon", "fusermount3", FILE_SYSTEMS[file_system][0][0])
    check_root()
    with tempfile.TemporaryDirectory(prefix="power-cuts-", dir=_memory()) as scratch:
        folder = Path(scratch)
        keys = ew.Credentials.create(folder / "keys", ["127.0.0.1"]).folder
        models = artifacts(folder / "artifacts", keys)
        with logged_disk(folder, file_system) as disk, agent(disk.mounted / "store", keys) as board:
            steps = live(board, keys, models, disk.logged_bytes)
        flushes = len(flush_ends(disk.log)) - 1
        say(
            f"{file_system}: {len(steps) - 1} steps, {disk.logged_bytes() / 2**20:.1f} MiB, {flushes} flushes"
        )
        return _look(folder, file_system, steps, models, extent, say)


def write_counts(counts: Sequence[Count], file: Path) -> None:
    """Writes the counts as a table."""
    with file.open("w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(field.name for field in fields(Count))
        rows.writerows(astuple(count) for count in counts)


def table_of(counts: Sequence[Count]) -> str:
    """Returns the sums by file system, for people."""
    lines = ["| file system | power cuts | went on from | lost |", "|---|--:|--:|--:|"]
    for name in dict.fromkeys(count.file_system for count in counts):
        mine = [count for count in counts if count.file_system == name]
        sums = [sum(getattr(count, field) for count in mine) for field in ("cuts", "resumed", "lost")]
        lines.append(f"| {name} | {' | '.join(map(str, sums))} |")
    return "\n".join(lines)


def _look(
    folder: Path, file_system: str, steps: list[Step], models: dict[str, Artifact], extent: Extent,
    say: Callable[[str], None],
) -> list[Count]:  # fmt: skip
    log, work = folder / "writes", folder / "work"
    timeline = Timeline(steps, flush_ends(log))
    tried: dict[str, list[int]] = {step.name: [0, 0, 0] for step in steps}
    for number, cut in enumerate(cuts(folder / "base", log, work, every=extent.every), 1):
        done = timeline.done(cut.log_end)
        count = tried[timeline.under_way(done)]
        resume = number % extent.resume_every == 0
        count[0] += 1
        count[1] += resume
        try:
            _check(folder, file_system, cut, timeline.allowed(done), models["first"] if resume else None)
        except LostError as lost:
            count[2] += 1
            say(f"{file_system}, after {steps[done].name}, {cut.kept} writes kept: {lost}")
    return [Count(file_system, name, *numbers) for name, numbers in tried.items() if numbers[0]]


def _check(
    folder: Path, file_system: str, cut: Cut, allowed: list[Survives], pushed: Artifact | None
) -> None:
    """Raises LostError unless the board comes back old or new, whole, and takes a push."""
    place = folder / "after"
    place.mkdir(exist_ok=True)
    with mounted(cut.image, place, FILE_SYSTEMS[file_system][1]):
        store = place / "store"
        if store.exists():
            check_store(store, folder / "keys/release.pub", allowed)
        if pushed is None:
            return
        with agent(store, folder / "keys") as board:
            wait_for_rest(board)
            if not board.push(pushed, delta=False).committed:
                raise LostError("the agent did not take the push after the cut")


def _memory() -> Path | None:
    memory = Path("/dev/shm")  # noqa: S108 - disks of 128 MiB, copied hundreds of times
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 2**30 else None

"""Lives through the workload on a logged disk, then looks at what each power cut would have left of it."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import edgewright as ew
from edgewright.trust.keys import load_trust
from edgewright_agent.deployment import lifecycle
from edgewright_agent.deployment.state import State
from edgewright_agent.store import Space, Store
from edgewright_agent.trust import Trust
from edgewright_builder.artifact.artifact import Artifact
from virtual_board.power_cuts.logged_disk import FILE_SYSTEMS, logged_disk, mounted
from virtual_board.power_cuts.workload import Step, Survives, agent, artifacts, live, wait_for_rest
from virtual_board.power_cuts.write_log import Cut, cuts, flush_ends


@dataclass(frozen=True)
class Count:
    """What was tried during one step on one file system, and what was lost."""

    file_system: str
    step: str
    cuts: int
    resumed: int  # by an agent that was started on what the cut left, and then took a push
    lost: int


class LostError(AssertionError):
    """A cut left something that must not be."""


@dataclass(frozen=True)
class Extent:
    """How much is tried."""

    every: int = 1  # so-manieth flush is cut after
    resume_every: int = 100  # so-manieth cut is gone on from by an agent, which then takes a push


def study(file_system: str, extent: Extent, say: Callable[[str], None]) -> list[Count]:
    """Returns the counts by step. Needs root."""
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
    ends = flush_ends(log)
    durable_from = [max(end for end in ends if end <= step.log_bytes) for step in steps]
    tried: dict[str, list[int]] = {step.name: [0, 0, 0] for step in steps}
    for number, cut in enumerate(cuts(folder / "base", log, work, every=extent.every), 1):
        done = max(index for index, end in enumerate(durable_from) if end <= cut.log_end or index == 0)
        count = tried[steps[min(done + 1, len(steps) - 1)].name]
        resume = number % extent.resume_every == 0
        count[0] += 1
        count[1] += resume
        try:
            allowed = [step.after for step in steps[done : done + 2]]
            _check(folder, file_system, cut, allowed, models["first"] if resume else None)
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
            _check_store(store, folder / "keys", allowed)
        if pushed is None:
            return
        with agent(store, folder / "keys") as board:
            wait_for_rest(board)
            if not board.push(pushed, delta=False).committed:
                raise LostError("the agent did not take the push after the cut")


def _check_store(folder: Path, keys: Path, allowed: list[Survives]) -> None:
    trust = Trust(load_trust([keys / "release.pub"]), folder / "trust").document
    store = Store(folder, space=Space(reserve_bytes=0))
    try:
        saved = store.state.read()
        if store.state.is_lost:
            raise LostError("the state can't be read")
        state = State() if saved is None else State.from_json(saved)
        releases = store.releases()
        if lifecycle.without_lost(state, set(releases)).active != state.active:
            raise LostError(f"the active release {state.active} is lost")
        for release in releases.values():
            store.verify_release(release)
        if quarantined := list((folder / "quarantine").iterdir()):
            raise LostError(f"{len(quarantined)} files are in quarantine")
    finally:
        store.close()
    if state.active not in {each.active for each in allowed}:
        raise LostError(f"active is {state.active}, not one of {[each.active for each in allowed]}")
    version = 0 if trust is None else trust.version
    if version < min(each.trust_version for each in allowed):
        raise LostError(f"the trust document is {version}, and {allowed[0].trust_version} was answered for")


def _memory() -> Path | None:
    memory = Path("/dev/shm")  # noqa: S108 - disks of 128 MiB, copied hundreds of times
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 2**30 else None

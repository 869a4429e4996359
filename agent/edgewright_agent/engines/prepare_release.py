"""Prepares a release for its engine: a process fills a folder aside, which is synced and then gets its name.

Whatever ends it early leaves a temporary folder, which the next preparation and the store's recovery remove.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from edgewright.durable import TEMPORARY_PREFIX, FileSystem, disk_errors, publish, remove_tree
from edgewright.errors import OutsideError
from edgewright.sizes import format_bytes
from edgewright.v1.common_pb2 import Reason
from edgewright_agent.engines.process.death import Death, DeathCause
from edgewright_agent.engines.process.process import EngineProcess
from edgewright_agent.engines.protocol.preparation import EnginePreparation, prepared_folder
from edgewright_agent.runtime.threads import run_in_thread, within

PREPARING_SECONDS_MAX = 2 * 3600.0  # a large model on a small board
REPORT_SECONDS = 2.0  # between two reports of how it goes
NO_SPACE = "No space left on device"

OnStep = Callable[[str], None]  # gets a sentence for people, without its end


def is_prepared(preparation: EnginePreparation, tree: Path) -> bool:
    """Whether the preparation was completed before."""
    return prepared_folder(tree, preparation.key).is_dir()


async def prepare(
    preparation: EnginePreparation, tree: Path, *, memory_bytes: int | None, on_step: OnStep
) -> None:
    """Prepares the release in `tree` within `memory_bytes`, and removes what an earlier version had prepared.

    Raises OutsideError (`ENGINE_FAILED`; `DISK_SPACE`), with a sentence that says what the process said. Then, and if
    it is cancelled, nothing is left.
    """
    folder = prepared_folder(tree, preparation.key)
    making = folder.with_name(f"{TEMPORARY_PREFIX}{folder.name}")
    fs = FileSystem()
    await run_in_thread(_make_empty, fs, making)
    try:
        death = await _run(preparation, making, memory_bytes, on_step)
        if death.exit_code != 0:
            raise _failure(preparation, death, memory_bytes)
        on_step(f"{preparation.what}: syncing it to the disk")
        await run_in_thread(_publish, fs, making, folder)
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, making, ignore_errors=True))


async def _run(
    preparation: EnginePreparation, folder: Path, memory_bytes: int | None, on_step: OnStep
) -> Death:
    steps = _Steps(preparation, on_step)
    process = await EngineProcess.spawn(
        preparation.command(folder), preparation.environment, memory_bytes,
        on_line=steps.read, words=preparation.words,
    )  # fmt: skip
    if memory_bytes is not None:
        process.end_when_over(memory_bytes)
    try:
        while steps.seconds < PREPARING_SECONDS_MAX:
            steps.report(process.memory().peak_bytes)
            try:
                return await within(REPORT_SECONDS, process.wait())
            except asyncio.TimeoutError:
                continue
        hours = PREPARING_SECONDS_MAX / 3600
        message = f"{preparation.what} was not prepared within {hours:g} hours. See the agent's log."
        raise OutsideError(message, Reason.REASON_ENGINE_FAILED)
    finally:
        await process.stop()


class _Steps:
    """How far a preparation has come. Tells each step as it begins, and its time and memory now and then."""

    def __init__(self, preparation: EnginePreparation, on_step: OnStep) -> None:
        self._preparation = preparation
        self._on_step = on_step
        self._step = "starting"
        self._peak_bytes = 0
        self._began_seconds = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self._began_seconds

    def read(self, line: str) -> None:
        """Takes one line of the output."""
        step = self._preparation.step_of(line)
        if step is not None:
            self._step = step
            self.report(self._peak_bytes)

    def report(self, peak_bytes: int) -> None:
        """Tells what is being done, since when, and the most memory it took."""
        self._peak_bytes = peak_bytes
        peak = f", peak {format_bytes(peak_bytes)}" if peak_bytes else ""
        self._on_step(f"{self._preparation.what}: {self._step}; {self.seconds:.0f} s{peak}")


def _failure(preparation: EnginePreparation, death: Death, memory_bytes: int | None) -> OutsideError:
    if any(NO_SPACE in line for line in death.last_lines):
        message = (
            f"{preparation.what} could not be prepared: the disk is full. Free some space "
            "(`edgewright releases HOST --delete DIGEST`)."
        )
        return OutsideError(message, Reason.REASON_DISK_SPACE)
    short = death.cause in (DeathCause.OUT_OF_MEMORY, DeathCause.OVER_BUDGET)
    limit = "" if memory_bytes is None else f" It may take {format_bytes(memory_bytes)} beside what serves."
    return OutsideError(
        f"{preparation.what} could not be prepared: {death.sentence}.{limit if short else ''} See the agent's log.",
        Reason.REASON_ENGINE_FAILED,
    )


def _make_empty(fs: FileSystem, folder: Path) -> None:
    with disk_errors(folder):
        remove_tree(fs, folder)
        fs.make_folder(folder)


def _publish(fs: FileSystem, making: Path, folder: Path) -> None:
    """Makes the folder durable, gives it its name, and removes those of other versions."""
    with disk_errors(folder):
        for parent, _, files in os.walk(making, topdown=False):
            for name in files:
                _sync(fs, Path(parent) / name)
            fs.sync_folder(Path(parent))
        publish(fs, making, folder)
        for other in folder.parent.iterdir():
            if other != folder:
                remove_tree(fs, other)


def _sync(fs: FileSystem, path: Path) -> None:
    if path.is_symlink():
        return
    file = fs.open(path)
    try:
        fs.sync_file(file)
    finally:
        fs.close(file)

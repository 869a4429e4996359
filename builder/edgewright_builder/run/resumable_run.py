"""A run: one execution of a recipe, a folder with a sub-folder per stage.

A stage is done when its `stage.json` says so for the same fingerprint: the SHA-256 of the stage's settings and of
what the stages before it produced. `stage.json` is written last and removed first, so a killed stage is simply not
done; what it left behind is kept only where the stage itself knows how to continue.
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.digests import digest_of, file_sha256
from edgewright.durable import FileSystem, write_durably, write_json
from edgewright.errors import InputError
from edgewright_builder.run.folder_owner import exclusive
from edgewright_builder.run.progress import Reporter

RECORDED = {"stage", "fingerprint", "output_digest", "seconds", "summary"}  # of a stage that is done
SHARED_NAME_CHARACTERS = 16  # of a fingerprint, in a shared stage's folder name
# In a stage's folder: the fingerprint under way, and the seconds that attempts before took.
STARTED = "started"
CLEARING = "is being cleared"  # stands there while the folder is
DISK_FREE_BYTES_MIN = 1024 * 1024  # below it a child that fails has failed for want of room
STAGES = (
    "data", "student", "teacher", "search", "finetune", "quantize", "recover", "export", "ladder", "evaluate",
    "package",
)  # fmt: skip


@dataclass(frozen=True)
class FinishedStage:
    """What a finished stage left: its folder, a digest of its products, and numbers for people."""

    name: str
    folder: Path
    output_digest: str
    seconds: float
    summary: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run folder and where its progress is shown."""

    folder: Path
    reporter: Reporter
    # Where several runs share stages, such as the cells of a study: a folder per stage and fingerprint.
    shared: Path | None = None

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        work: Callable[[Path], dict[str, Any]],
        *,
        products: Sequence[str],
        resumable: bool = False,
        reuses_results: bool = False,
    ) -> FinishedStage:
        """Runs `work(folder)` unless it is done for these inputs, and records the summary that it returns.

        `products` are the files and folders that later stages read; their digest is what those stages depend on.
        `resumable` stages find their folder as a killed attempt with the same inputs left it; others an empty one.
        `reuses_results` stages find it also as other inputs left it: they know what of it still holds.
        A shared stage that another process works on is waited for.
        """
        fingerprint = digest_of(inputs)
        folder = self._folder_of(name, fingerprint)
        attempt = _Attempt(folder, fingerprint, resumable, reuses_results)
        with nullcontext() if self.shared is None else exclusive(folder.with_suffix(".lock")):
            return self._in_folder(attempt, name, work, products)

    def kept(self, name: str, inputs: Mapping[str, Any]) -> FinishedStage | None:
        """Returns the stage if it is done for these inputs, so that `stage` would not run it; else None."""
        fingerprint = digest_of(inputs)
        return _done(self._folder_of(name, fingerprint), fingerprint)

    def _folder_of(self, name: str, fingerprint: str) -> Path:
        if self.shared is None:
            return self.folder / name
        return self.shared / f"{name}-{fingerprint[:SHARED_NAME_CHARACTERS]}"

    def _in_folder(
        self,
        attempt: _Attempt,
        name: str,
        work: Callable[[Path], dict[str, Any]],
        products: Sequence[str],
    ) -> FinishedStage:
        folder = attempt.folder
        if (done := _done(folder, attempt.fingerprint)) is not None:
            self.reporter.note(f"{name}: done before, kept")
            return done
        seconds_before = attempt.begin()
        self.reporter.console.print(f"[bold]{name}[/bold]")
        started = time.monotonic()
        with self.reporter.stage_progress(name):
            summary = work(folder)
        seconds = seconds_before + time.monotonic() - started
        record: dict[str, Any] = {
            "stage": name,
            "status": "done",
            "fingerprint": attempt.fingerprint,
            "output_digest": digest_of_products(folder, products),
            "seconds": round(seconds, 1),
            "summary": summary,
        }
        write_json(folder / "stage.json", record)
        self.reporter.note(f"{name}: {seconds:.0f} s  {_brief(summary)}")
        return FinishedStage(name, folder, record["output_digest"], seconds, summary)


def read_stage(folder: Path) -> dict[str, Any] | None:
    """Returns the stage's record, or None if the stage is not done. Raises InputError for a damaged one."""
    path = folder / "stage.json"
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if missing := RECORDED - record.keys():
            raise ValueError(f"it has no {min(missing)}")
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); delete {folder} to run the stage again.") from None
    return record


def finished_stage(folder: Path) -> FinishedStage:
    """Returns the finished stage in the folder. Raises InputError where none is."""
    record = read_stage(folder)
    if record is None:
        raise InputError(f"{folder} holds no finished stage; run the build that it belongs to.")
    return _finished(folder, record)


def _done(folder: Path, fingerprint: str) -> FinishedStage | None:
    record = read_stage(folder)
    return _finished(folder, record) if record is not None and record["fingerprint"] == fingerprint else None


def _finished(folder: Path, record: Mapping[str, Any]) -> FinishedStage:
    return FinishedStage(
        record["stage"], folder, record["output_digest"], record["seconds"], record["summary"]
    )


@dataclass(frozen=True)
class _Attempt:
    """One attempt at a stage, in the folder that those before it left."""

    folder: Path
    fingerprint: str
    resumable: bool
    reuses_results: bool

    def begin(self) -> float:
        """Leaves the folder as the stage is to find it. Returns the seconds that the attempts it continues took."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # First: no kill from here on leaves a stage that is done.
        (self.folder / "stage.json").unlink(missing_ok=True)
        marker = self.folder / STARTED
        under_way = marker.read_text(encoding="utf-8").split("\n") if marker.is_file() else [""]
        seconds = 0.0
        if self.resumable and under_way[0] == self.fingerprint:
            seconds = float(under_way[1] if len(under_way) > 1 else 0) + self._seconds_of_last()
        elif not self.reuses_results:
            write_durably(FileSystem(), marker, CLEARING.encode())
            _clear(self.folder, keep=marker)
        write_durably(FileSystem(), marker, f"{self.fingerprint}\n{seconds:.1f}".encode())
        return seconds

    def _seconds_of_last(self) -> float:
        """Returns how long the attempt before ran: until the last file that it wrote, as a kill leaves nothing else."""
        written = (path.lstat().st_mtime for path in self.folder.rglob("*"))
        return max(written) - (self.folder / STARTED).stat().st_mtime


def _clear(folder: Path, keep: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != keep:
            path.unlink()


def unfinished_stage(run: Path) -> str | None:
    """Returns the first stage in a run's folder that was begun and not done; None if there is none."""
    begun = (name for name in STAGES if (run / name / STARTED).is_file())
    return next((name for name in begun if not (run / name / "stage.json").is_file()), None)


def shipped_checkpoint(run: Path) -> Path:
    """Returns the GPTQ checkpoint in a run's folder that its artifact was exported from; it may not exist."""
    recovered = run / "recover" / "model"
    return recovered if recovered.is_dir() else run / "quantize" / "model"


def digest_of_products(folder: Path, products: Sequence[str]) -> str:
    """Returns the SHA-256 over the paths and contents of the products, folders taken whole."""
    files: set[Path] = set()
    for product in products:
        path = folder / product
        files |= {path} if path.is_file() else {file for file in path.rglob("*") if file.is_file()}
    return digest_of([[str(file.relative_to(folder)), file_sha256(file)] for file in sorted(files)])


def child_fault(what: str, returncode: int, log: Path) -> str:
    """Returns a sentence on a child process that failed: how it ended, what its log says last, and what to do."""
    how = f"failed with exit code {returncode}"
    if returncode < 0:
        how = f"was killed by signal {-returncode}"
        how += ", as the kernel does when memory runs out" if returncode == -signal.SIGKILL else ""
    if shutil.disk_usage(log.parent).free < DISK_FREE_BYTES_MIN:
        how += " and its disk is full"
    return f"{what} {how}; its log {log} ends: {last_line(log)}. Mend that and run again with --resume."


def last_line(log: Path) -> str:
    """Returns the last line of a child process's log, which as a rule says why the process failed."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it is empty")


def _brief(summary: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in summary.items() if isinstance(value, (int, float, str))}
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items()
    )

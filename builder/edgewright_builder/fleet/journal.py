"""The rollout's memory: one line of JSON per event, on disk before the rollout goes on.

A host that dies in the middle of a night's rollout is started again with the same journal and goes on: devices that
committed are left alone, those that failed stay failed, the rest is tried. Boards change without a journal knowing:
`resumption` asks those that committed.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.errors import BusyError, InputError
from edgewright.sizes import format_bytes
from edgewright_builder.fleet.wave_rules import FAILURES, SUCCESSES, DeviceOutcome


@dataclass(frozen=True)
class DeviceResult:
    """How one device ended."""

    device: str  # its name
    outcome: DeviceOutcome
    message: str
    release: str  # that the device serves now, in hex; empty if none or unknown
    sent_bytes: int
    seconds: float

    @property
    def settled(self) -> bool:
        """Whether going on with the rollout leaves this device alone."""
        return self.outcome in SUCCESSES + FAILURES

    def row(self) -> tuple[str, ...]:
        """Returns the result as a row of a table."""
        return (
            self.device, self.outcome.value, self.release[:12] or "-", format_bytes(self.sent_bytes),
            f"{self.seconds:.1f}", self.message,
        )  # fmt: skip


class RolloutJournal:
    """Results of one release on one fleet, kept in an append-only file."""

    def __init__(self, path: Path, results: dict[str, DeviceResult]) -> None:
        self._path = path
        self.results = results  # the last of each device

    @classmethod
    def open(
        cls,
        path: Path,
        release: str,
        devices: Sequence[str],
        *,
        retry_failed: bool = False,
        activate: bool = True,
    ) -> RolloutJournal:
        """Begins a journal, or goes on with one of the same release.

        Its failures are forgotten if they are to be retried; what was only staged, if it is to be activated. A
        torn last line, as a power cut leaves it, is dropped. Raises InputError if the file is another release's,
        or no journal; such a file stays as it is.
        """
        events = _read(path, release)
        if not events:
            journal = cls(path, {})
            journal._append({"release": release, "devices": list(devices), "time": time.time()})
            _sync_folder(path)
            return journal
        header, *events = events
        if header.get("release") != release:
            raise InputError(
                f"{path} is the journal of release {str(header.get('release'))[:12]}, not of {release[:12]}; "
                "name another with --journal."
            )
        results = {result.device: result for result in map(_result, events)}
        unsettled = (*(FAILURES if retry_failed else ()), *((DeviceOutcome.STAGED,) if activate else ()))
        journal = cls(path, results)
        journal.forget([name for name, result in results.items() if result.outcome in unsettled])
        return journal

    def forget(self, devices: Iterable[str]) -> None:
        """Goes on as if nothing were known of these devices; what the file says of them stays in it."""
        for name in devices:
            del self.results[name]

    def record(self, result: DeviceResult) -> None:
        """Keeps a result, durably."""
        self.results[result.device] = result
        self._append({**vars(result), "outcome": result.outcome.value, "time": time.time()})

    def _append(self, event: Mapping[str, Any]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self._path, error) from None


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keeps a second rollout off the journal while the context is open. Raises BusyError, InputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise _unwritable(path, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"Another rollout is writing {path}: wait for its end, or name another with --journal."
            raise BusyError(message) from None
        yield


def _read(path: Path, release: str) -> list[dict[str, Any]]:
    """Returns every whole line; none if there is not even the first one. Cuts a torn end off what is known to be a
    journal.
    """
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise InputError(
            f"The journal {path} can't be read ({error.strerror}); name another with --journal."
        ) from None
    whole, newline, torn = data.rpartition(b"\n")
    begins_here = not newline and _may_begin(torn, release)
    events = [] if begins_here else _events(path, whole)
    if torn:
        _cut(path, len(whole + newline))  # so that the next event begins a line of its own
    return events


def _may_begin(data: bytes, release: str) -> bool:
    """Whether these bytes are what a power cut left of a first line, if anything."""
    beginning = json.dumps({"release": release})[:-1].encode()
    return data.startswith(beginning) or beginning.startswith(data)


def _events(path: Path, lines: bytes) -> list[dict[str, Any]]:
    try:
        # Not splitlines: a board's message may hold a U+2028, which ends no line here.
        events = [json.loads(line) for line in lines.decode().split("\n")]
        if not all(isinstance(event, dict) for event in events) or "release" not in events[0]:
            raise ValueError("it does not begin with a release")
        for event in events[1:]:
            _result(event)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not the journal of a rollout ({error}).") from None
    return events


def _cut(path: Path, size_bytes: int) -> None:
    try:
        with path.open("r+b") as file:
            file.truncate(size_bytes)
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(path, error) from None


def _sync_folder(path: Path) -> None:
    """A file that was just made is found again after a power cut only once its folder is on the disk too."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"The journal {path} can't be written ({error.strerror}).")


def _result(event: Mapping[str, Any]) -> DeviceResult:
    return DeviceResult(
        device=str(event["device"]),
        outcome=DeviceOutcome(event["outcome"]),
        message=str(event["message"]),
        release=str(event["release"]),
        sent_bytes=int(event["sent_bytes"]),
        seconds=float(event["seconds"]),
    )

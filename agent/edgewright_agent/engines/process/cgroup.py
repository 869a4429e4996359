"""A control group with a memory limit for one engine: the kernel enforces what the plan promised.

cgroup v2 (kernel: Documentation/admin-guide/cgroup-v2.rst) where the memory controller is there, else v1
(cgroup-v1/memory.rst) where the host mounts that. Both may be needed: JetPack 4 and 5 mount v1, JetPack 6 and 7 v2.
Page cache counts towards the limit, but the kernel takes it back before it kills anyone.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from edgewright_agent.engines.process.process_group import descendants

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Enforcement:
    """Whether this process may limit an engine's memory, and how or why not."""

    available: bool
    detail: str


@dataclass(frozen=True)
class Parent:
    """The cgroup that engines' groups are made in: the one this process is in."""

    folder: Path
    version: int  # 1 or 2


@dataclass(frozen=True)
class EngineCgroup:
    """One engine's group; exists while the engine runs."""

    folder: Path
    version: int

    def add(self, pid: int) -> None:
        """Moves the process here. What it allocated before stays counted where it was. Raises OSError."""
        _write(self.folder / "cgroup.procs", str(pid))

    @property
    def kills_file(self) -> Path:
        """The file in which the kernel counts the processes of this group that it killed for memory; see `kills`."""
        return self.folder / ("memory.events" if self.version == 2 else "memory.oom_control")

    def peak_bytes(self) -> int | None:
        """Returns the most memory it has held, page cache included; None on v2 before Linux 5.19."""
        name = "memory.peak" if self.version == 2 else "memory.max_usage_in_bytes"
        text = _read(self.folder / name).strip()
        return int(text) if text else None

    def remove(self) -> None:
        """Deletes the empty group; one that still holds a process stays."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def cgroup_of(pid: int, root: Path = ROOT) -> EngineCgroup:
    """Returns the group that a process is in. Raises FileNotFoundError where no memory controller is mounted."""
    parent = find_parent(root, Path(f"/proc/{pid}/cgroup"))
    return EngineCgroup(parent.folder, parent.version)


def enforcement(root: Path = ROOT, own: Path = OWN) -> Enforcement:
    """Whether this process may set a limit: tries it with an empty group, and moves no process for it."""
    try:
        parent = find_parent(root, own)
        if parent.version == 2 and not _hands_down_memory(parent.folder):
            _check_may_hand_down(parent.folder)
        else:
            make_engine_cgroup(2**30, root=root, own=own).remove()
    except OSError as error:
        return Enforcement(False, why_not(error))
    return Enforcement(True, f"cgroup v{parent.version} in {parent.folder}")


def why_not(error: OSError) -> str:
    """Returns the reason for people, and what to do, without a full stop."""
    if isinstance(error, FileNotFoundError):
        return "no memory controller is mounted below /sys/fs/cgroup"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.filename} is not ours to write: run under systemd with Delegate=memory, or as root"
    if error.errno == errno.EBUSY:
        return f"{error.filename} {error.strerror}: run under systemd with Delegate=memory, in a group of its own"
    return f"{error.filename}: {error.strerror}; run under systemd with Delegate=memory"


def make_engine_cgroup(limit_bytes: int, *, root: Path = ROOT, own: Path = OWN) -> EngineCgroup:
    """Makes a group below this process's own, limited to `limit_bytes` of memory and no swap.

    Raises OSError where this process may not, or FileNotFoundError where no memory controller is mounted.
    """
    parent = find_parent(root, own)
    if parent.version == 2:
        _hand_down_memory(parent.folder)
    folder = parent.folder / f"edgewright-engine-{os.getpid()}-{next(_numbers)}"
    folder.mkdir()
    group = EngineCgroup(folder, parent.version)
    try:
        _limit(group, limit_bytes)
    except OSError:
        group.remove()
        raise
    return group


def find_parent(root: Path = ROOT, own: Path = OWN) -> Parent:
    """Returns this process's group in the hierarchy with the memory controller (cgroups(7), /proc/PID/cgroup)."""
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        inside = path.lstrip("/")
        if controllers == "" and "memory" in _read(root / inside / "cgroup.controllers").split():
            folder = root / inside
            return Parent(folder.parent if folder.name == "agent" else folder, 2)
        if (
            "memory" in controllers.split(",")
            and (root / "memory" / inside / "memory.limit_in_bytes").exists()
        ):
            return Parent(root / "memory" / inside, 1)
    raise FileNotFoundError(2, "no memory controller", str(root))


def _hand_down_memory(folder: Path) -> None:
    """Lets groups below `folder` limit memory. v2 allows that only where no process is: ours move to `agent`.

    The hierarchy's root is the exception: it holds processes and groups. Raises OSError (EBUSY) where somebody else's
    process is, which is not ours to move.
    """
    if _hands_down_memory(folder):
        return
    _check_may_hand_down(folder)
    if not _is_root(folder) and (pids := _read(folder / "cgroup.procs").split()):
        leaf = folder / "agent"
        leaf.mkdir(exist_ok=True)
        for pid in pids:
            _write(leaf / "cgroup.procs", pid)
    _write(folder / "cgroup.subtree_control", "+memory")


def _hands_down_memory(folder: Path) -> bool:
    return "memory" in _read(folder / "cgroup.subtree_control").split()


def _check_may_hand_down(folder: Path) -> None:
    """Raises OSError unless the group may be written, and holds this process and its own at most. Changes nothing."""
    control = folder / "cgroup.subtree_control"
    if not os.access(control, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(control))
    if _is_root(folder):
        return
    ours = {os.getpid(), *descendants(os.getpid())}
    others = [pid for pid in _read(folder / "cgroup.procs").split() if int(pid) not in ours]
    if others:
        raise OSError(errno.EBUSY, f"holds other processes too, such as {others[0]}", str(folder))


def _is_root(folder: Path) -> bool:
    """Whether this is the hierarchy's root, the one group without a type (cgroup-v2.rst, "Core Interface Files")."""
    return (folder / "cgroup.procs").exists() and not (folder / "cgroup.type").exists()


def _limit(group: EngineCgroup, limit_bytes: int) -> None:
    if group.version == 2:
        _write(group.folder / "memory.max", str(limit_bytes))
        with contextlib.suppress(OSError):  # kernels without swap accounting have no such file
            _write(group.folder / "memory.swap.max", "0")
        _write(group.folder / "memory.oom.group", "1")
        return
    _write(group.folder / "memory.limit_in_bytes", str(limit_bytes))
    with contextlib.suppress(OSError):
        _write(group.folder / "memory.memsw.limit_in_bytes", str(limit_bytes))


def _write(file: Path, text: str) -> None:
    try:
        with file.open("w", encoding="ascii") as control:
            control.write(text)
    except OSError as error:  # one from the write itself does not name the file
        raise type(error)(error.errno, error.strerror, str(file)) from None


def _read(file: Path) -> str:
    """Returns the content; empty if the file is not there or not ours to read."""
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""

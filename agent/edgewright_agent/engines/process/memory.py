"""Memory of a process and its children."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class EngineMemory:
    """Memory of the engine's process tree."""

    now_bytes: int
    peak_bytes: int  # since the start of the process, or since it has restarted its high-water mark
    measure: str  # how: "pss" shares pages fairly between processes, "rss" counts them in each; of now, of the peak


class TreeMemory:
    """Reads the memory of a process tree and remembers the highest reading.

    Now: the sum of PSS (proc_pid_smaps(5): shared pages divided by their users) where the kernel lets us read
    it, else of RSS. Peak: for a single process the kernel's own high-water mark of RSS (VmHWM), which no
    sampling can miss; for several what they hold now and what each of them has let go of since its own mark, as if
    all had peaked at once. The ONNX Runtime worker restarts its mark once the model is loaded (see its `weights`).
    """

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        self._pid = pid
        self._proc = proc
        self._peak_bytes = 0
        self._measure = "rss"

    def read(self) -> EngineMemory:
        """Returns the memory now and at the peak; 0 now if the process has ended."""
        pids = self._tree()
        parts = [self._pss(pid) for pid in pids]
        self._measure = "rss" if None in parts else "pss"
        if None in parts:
            parts = [self._status(pid, "VmRSS") for pid in pids]
        now = sum(part or 0 for part in parts)
        self._peak_bytes = max(self._peak_bytes, self._peak(pids, now))
        return EngineMemory(now, self._peak_bytes, self._named(len(pids)))

    def read_peak_bytes(self) -> int:
        """Returns the peak alone. That is a tenth of the work of `read`, as PSS makes the kernel look at every page."""
        if len(self._tree()) != 1:
            return self.read().peak_bytes
        self._peak_bytes = max(self._peak_bytes, self._status(self._pid, "VmHWM"))
        return self._peak_bytes

    def _peak(self, pids: list[int], now: int) -> int:
        if len(pids) == 1:
            return max(now, self._status(self._pid, "VmHWM"))
        return now + sum(max(0, self._status(pid, "VmHWM") - self._status(pid, "VmRSS")) for pid in pids)

    def _named(self, processes: int) -> str:
        if self._measure == "rss" or not processes:
            return self._measure
        return "pss, peak rss" if processes == 1 else "pss, peaks added"

    def _tree(self) -> list[int]:
        """Returns the tree's process ids, root first; empty if it has ended.

        The kernel lists a process's children; psutil would read every process there is.
        """
        with contextlib.suppress(
            FileNotFoundError, ProcessLookupError
        ):  # one was reaped while it was looked at
            if Path(f"/proc/{self._pid}/task/{self._pid}/children").exists():
                return self._tree_by_children()
        return self._tree_by_search()

    def _tree_by_children(self) -> list[int]:
        pids = [self._pid]
        for pid in pids:
            for file in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):  # ended meanwhile
                    pids += map(int, file.read_text(encoding="ascii").split())
        return pids

    def _tree_by_search(self) -> list[int]:
        """Searches all processes: for kernels without CONFIG_PROC_CHILDREN, and where a process ended meanwhile."""
        try:
            root = psutil.Process(self._pid)
            return [self._pid, *(child.pid for child in root.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def _pss(self, pid: int) -> int | None:
        return self._kib(self._proc / str(pid) / "smaps_rollup", "Pss")

    def _status(self, pid: int, name: str) -> int:
        return self._kib(self._proc / str(pid) / "status", name) or 0

    @staticmethod
    def _kib(file: Path, name: str) -> int | None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except OSError:  # ended meanwhile, or not ours to read
            return None
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)

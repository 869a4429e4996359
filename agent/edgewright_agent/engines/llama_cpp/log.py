"""What llama.cpp says of itself in its log, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgewright_agent.engines.process.death import LogWords

# load_tensors: offloaded 17/17 layers to GPU, and load_tensors: CUDA0 model buffer size = 702.11 MiB.
_OFFLOADED = re.compile(r"offloaded (\d+/\d+) layers to GPU")
_BUFFER = re.compile(r"load_tensors: +(\S+) model buffer size = +(\S+ MiB)")
WORDS = LogWords(
    out_of_memory=r"insufficient memory|failed to allocate (\w+ )?buffer|failed to allocate compute|not enough memory",
    error=r"error loading model: \S",
    prefix=r"(\d+\.){3}\d+ [A-Z] ",
)


class BackendLog:
    """Collects where the weights lie: in which backend's memory, and how many layers on the GPU."""

    slow_kernels: Sequence[str] = ()

    def __init__(self) -> None:
        self.kernels: list[str] = []

    def read(self, line: str) -> None:
        """Takes one line of the log."""
        if match := _OFFLOADED.search(line):
            self._add(f"{match[1]} layers on the GPU")
        elif match := _BUFFER.search(line):
            self._add(f"{match[1]} holds {match[2]}")

    def _add(self, kernel: str) -> None:
        if kernel not in self.kernels:
            self.kernels.append(kernel)

"""What TensorRT Edge-LLM says of itself in its log: how far a build has come, and why it ends."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgewright_agent.engines.process.death import LogWords

WORDS = LogWords(
    # Of TensorRT's allocator and of its builder, which gives up a layer that no kernel has the memory for.
    out_of_memory=r"could not be allocated|Error Code \d+: OutOfMemory|cudaErrorMemoryAllocation"
    r"|insufficient memory on workspace",
    error=r"\[TRT\] .*Error Code|^TensorRT prerequisite error: \S|^invalid server configuration: \S",
    consequence=r"build_serialized_network returned None",
    prefix=r"[\d:, -]+ [A-Z]+ +[\w.]+: ",
)
_INFO = re.compile(r"^[\d:, -]+ INFO +[\w.]+: (?!\[TRT\])(?P<step>\S.*)$")
BUILT_AT_START = "it built its engine anew at its start"


def step_of(line: str) -> str | None:
    """Returns what a build does from now on, of a line of its log; None if the line does not say."""
    match = _INFO.match(line)
    return None if match is None else match["step"].rstrip(".")


class BuildLog:
    """Notices a server that did not find the engine that was built for it, and builds another."""

    def __init__(self) -> None:
        self.kernels: list[str] = []

    @property
    def slow_kernels(self) -> Sequence[str]:
        """The same: it takes minutes and memory at each start."""
        return self.kernels

    def read(self, line: str) -> None:
        """Takes one line of the log."""
        if "Building component" in line and not self.kernels:
            self.kernels.append(BUILT_AT_START)

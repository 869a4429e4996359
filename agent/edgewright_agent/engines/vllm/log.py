"""What vLLM says of itself in its log, and nowhere else."""

from __future__ import annotations

import re

# logger.info("Using %s for %s") of vllm/model_executor: one line from the kernel's choice, one from the layer's method.
_KERNEL = re.compile(r"Using (\w+Kernel) for (\S.*)$")


class KernelLog:
    """Collects the kernels that vLLM chose, each once, in the order it named them."""

    def __init__(self) -> None:
        self.kernels: list[str] = []

    def read(self, line: str) -> None:
        """Takes one line of the log."""
        if found := _KERNEL.search(line):
            kernel = f"{found[1]} for {found[2]}"
            if kernel not in self.kernels:
                self.kernels.append(kernel)

"""What vLLM says of itself in its log, and nowhere else."""

from __future__ import annotations

import re

from edgewright_agent.engines.process.death import LogWords

# logger.info("Using %s for %s") of vllm/model_executor: one line from the kernel's choice, one from the layer's method.
_KERNEL = re.compile(r"Using (\w+Kernel) for (\S.*)$")
# What vLLM falls back to where a GPU has no code for Marlin or Machete: prompts are then read several times slower.
SLOW_KERNELS = ("ExllamaLinearKernel", "ConchLinearKernel", "TritonW4A16LinearKernel")
WORDS = LogWords(
    # Of torch, and of vLLM where it finds too little memory before it allocates.
    out_of_memory=r"can't allocate memory|CUDACachingAllocator|not enough memory|No available memory for the cache"
    r"|GiB KV cache is needed|is less than desired|is less than requested memory",
    # What its processes say when another of them has ended.
    consequence=r"Engine core initialization failed|EngineDeadError|Executor failed|WorkerProc initialization failed"
    r"|died unexpectedly|UserWarning",
    prefix=r"\(\w+[^)]*\) [A-Z]+ [\d-]+ [\d:]+ \[[^]]*\] ",
)


class KernelLog:
    """Collects the kernels that vLLM chose, each once, in the order it named them."""

    def __init__(self) -> None:
        self.kernels: list[str] = []

    @property
    def slow_kernels(self) -> list[str]:
        """Those of the kernels that are a fallback."""
        return [kernel for kernel in self.kernels if kernel.startswith(SLOW_KERNELS)]

    def read(self, line: str) -> None:
        """Takes one line of the log."""
        if found := _KERNEL.search(line):
            kernel = f"{found[1]} for {found[2]}"
            if kernel not in self.kernels:
                self.kernels.append(kernel)

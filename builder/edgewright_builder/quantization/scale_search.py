"""Makes GPTQModel's search for scales cheap enough to be worth its time on a CPU.

With `mse` GPTQModel 7.6 tries 80 scales a group, down to a fifth of the largest weight's, and before that 80 for each
whole matrix, whose result no grouped quantization reads. Here each group gets `CANDIDATES` down to `SHRINK_MOST`, where
the best ones lie, and the matrix none.

Only the process that quantizes imports this. GPTQModel makes one `GPTQ` for each linear layer, by that name in its
`gptq_processor`; the name points to a subclass for the one run of this process.
"""

from __future__ import annotations

from typing import Any

from gptqmodel.looper import gptq_processor
from gptqmodel.quantization import GPTQ
from gptqmodel.quantization.quantizer import Quantizer
from torch import Tensor

CANDIDATES = 16
SHRINK_MOST = 0.4  # of the scale that the largest weight asks for


class _GroupQuantizer(Quantizer):  # type: ignore[misc]
    def configure(self, perchannel: bool = False, **options: Any) -> None:
        grid = round(CANDIDATES / SHRINK_MOST)  # steps of 1 / grid
        super().configure(perchannel, **options | {"grid": grid, "maxshrink": SHRINK_MOST})

    def find_params(self, x: Tensor, weight: bool = False) -> None:
        if x.shape[1] <= self.qcfg.group_size:
            super().find_params(x, weight)


class _GroupSearch(GPTQ):  # type: ignore[misc]
    def create_quantizer(self, name: str) -> Quantizer:
        return _GroupQuantizer(qcfg=self.qcfg, name=name)


def install() -> None:
    """Makes GPTQModel search each group's scale this way from now on."""
    gptq_processor.GPTQ = _GroupSearch

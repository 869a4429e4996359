"""Puts `delta_aware` into GPTQModel, which calibrates, makes Hessians, packs and saves; the choice of codes is ours.

Only the process that quantizes imports this. GPTQModel 7.6 makes one `GPTQ` for each linear layer, by that name in its
`gptq_processor`; the name points to a subclass for the one run of this process.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from gptqmodel.looper import gptq_processor
from gptqmodel.quantization import GPTQ
from safetensors import safe_open
from torch import Tensor

from edgewright_builder.quantization.delta_aware import ZERO, Frozen, requantize, unpack


class Checkpoint:
    """The tensors of a folder of safetensors, read one by one."""

    def __init__(self, folder: Path) -> None:
        files: list[Any] = [safe_open(path, framework="pt") for path in sorted(folder.glob("*.safetensors"))]
        self._files = {name: file for file in files for name in file.keys()}  # noqa: SIM118 - not a dict

    def tensor(self, name: str) -> Tensor:
        """Returns the tensor `name`."""
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def frozen(self, layer: str) -> Frozen:
        """Returns the quantized linear layer `layer`."""
        return unpack(*(self.tensor(f"{layer}.{part}") for part in ("qweight", "scales", "qzeros")))


class CodeChanges:
    """How many codes moved."""

    def __init__(self) -> None:
        self.codes = 0
        self.codes_changed = 0
        self.tensors_kept = 0

    def add(self, old: Tensor, new: Tensor) -> None:
        """Counts one layer's codes before and after."""
        changed = int((old != new).sum())
        self.codes += old.numel()
        self.codes_changed += changed
        self.tensors_kept += changed == 0

    def summary(self, dead_band: float) -> dict[str, Any]:
        """Returns the counts for the stage's record and the artifact's lineage."""
        return {
            "dead_band": dead_band,
            "codes_changed_fraction": self.codes_changed / max(1, self.codes),
            "tensors_kept": self.tensors_kept,
        }


def install(quantized: Checkpoint, unquantized: Checkpoint | None, dead_band: float) -> CodeChanges:
    """Makes GPTQModel keep the codes of `quantized` from now on.

    A layer whose weights are those of `unquantized`, which `quantized` was made of, keeps them all.
    """
    changes = CodeChanges()

    class DeltaAware(GPTQ):  # type: ignore[misc]
        def quantize(self, blocksize: int = 128) -> tuple[Any, ...]:
            started = time.monotonic()
            name = self._named_module.full_name
            hessian = self.finalize_hessian(target_device=getattr(self.module, "target_device", None))
            weight = self.clone_module(device=hessian.device)
            frozen = quantized.frozen(name).to(weight.device)
            if unquantized is not None and torch.equal(
                unquantized.tensor(f"{name}.weight").to(weight), weight
            ):
                codes, loss, damp = frozen.codes, 0.0, 0.0
            else:
                codes, loss, damp = _requantize(self, weight, hessian, frozen, dead_band)
            changes.add(frozen.codes, codes)
            self.H = None
            groups = torch.arange(self.columns, dtype=torch.int32) // frozen.group_size
            return (
                frozen.dequantize(codes).to(self.module.weight), frozen.scales,
                torch.full_like(frozen.scales, ZERO), groups, time.monotonic() - started,
                loss / max(1, self.nsamples), damp, self.nsamples,
            )  # fmt: skip

    gptq_processor.GPTQ = DeltaAware
    return changes


def _requantize(
    task: Any, weight: Tensor, hessian: Tensor, frozen: Frozen, dead_band: float
) -> tuple[Tensor, float, float]:
    """Returns codes, GPTQ's loss and the damping used. Columns that matter most come first, as frozen scales allow."""
    dead = torch.diag(hessian) == 0  # inputs that calibration never saw
    hessian[dead, dead] = 1
    order = torch.argsort(torch.diag(hessian), descending=True)
    factor, damp = task.hessian_inverse(hessian[order][:, order])
    scales, old = frozen.column_scales[:, order], frozen.codes[:, order]
    codes, loss = requantize(weight[:, order], factor, scales, old, dead_band)
    return codes[:, torch.argsort(order)], loss, float(damp)

"""Stage 3 of an adapter's build: a LoRA trained on the 4-bit base, which stays as it is.

So the adapter also learns what 4 bits lost, and what was trained is what serves: nothing is merged or rounded after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from edgewright.durable import write_json
from edgewright_builder.export.lora_slots import AdapterSlot, Factors, write_adapter
from edgewright_builder.quantization.gptq_checkpoint import load_dequantized
from edgewright_builder.recipe.model import Finetune
from edgewright_builder.train.distill import (
    DistillationData,
    TrainStep,
    train_epoch,
    validation_divergence,
    validation_loss,
)
from edgewright_builder.train.lora import Hyperparameters, add_lora, lora_factors

ADAPTER_NAME = "model.onnx_adapter"


def finetune_adapter(
    checkpoint: Path,
    data: DistillationData,
    hyperparameters: Hyperparameters,
    modules: Sequence[str],
    epochs: int,
    settings: Finetune,
    seed: int,
    folder: Path,
    on_progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Writes `adapter/model.onnx_adapter` (what ships), `peft` (the same for PEFT) and `curves.json`.

    Each epoch is shuffled anew and has its own warmup and decay.
    """
    model = load_dequantized(checkpoint)
    before = _judge(model, data, hyperparameters, settings)
    adapted = add_lora(model, hyperparameters, seed, modules)
    steps: list[TrainStep] = []
    after = [before]
    for epoch in range(epochs):
        on_step = _record(steps, epoch, epochs, on_progress)
        train_epoch(adapted, data, hyperparameters, settings, seed + epoch, on_step)
        after.append(_judge(model, data, hyperparameters, settings))
    adapted.save_pretrained(folder / "peft")  # type: ignore[operator]
    (folder / "adapter").mkdir()
    write_adapter(adapter_factors(adapted), folder / "adapter" / ADAPTER_NAME)
    curves = {
        "train": [asdict(step) for step in steps],
        "validation": after,
        "hyperparameters": asdict(hyperparameters),
    }
    write_json(folder / "curves.json", curves)
    return {
        "validation_loss_before": before["loss"],
        "validation_loss_after": after[-1]["loss"],
        "kl_before": before["kl"],
        "kl_after": after[-1]["kl"],
        "adapter_bytes": (folder / "adapter" / ADAPTER_NAME).stat().st_size,
    }


def adapter_factors(adapted: nn.Module) -> dict[AdapterSlot, Factors]:
    """The trained factors by their places in the exported graph."""
    return {
        AdapterSlot(layer, module): Factors(_array(a.T), _array(b.T))
        for (layer, module), (a, b) in lora_factors(adapted).items()
    }


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().cpu().contiguous().numpy()
    return array


def _judge(
    model: nn.Module, data: DistillationData, hyperparameters: Hyperparameters, settings: Finetune
) -> dict[str, float]:
    """On the validation split: the loss that is trained, and the KL to the knowledge teacher at T = 1."""
    loss = validation_loss(model, data, hyperparameters, settings.batch_tokens)
    kl = validation_divergence(model, data, settings.batch_tokens)
    return {"loss": loss, "kl": kl.mean, "kl_standard_error": kl.standard_error}


def _record(
    steps: list[TrainStep], epoch: int, epochs: int, on_progress: Callable[[int, int, str], None]
) -> Callable[[TrainStep], None]:
    started = time.monotonic()

    def on_step(step: TrainStep) -> None:
        steps.append(step)
        rate = step.tokens / (time.monotonic() - started)
        text = f"steps, epoch {epoch + 1} of {epochs}, loss {step.loss:.3f}, {rate:.0f} tok/s"
        on_progress(epoch * step.steps + step.step, epochs * step.steps, text)

    return on_step

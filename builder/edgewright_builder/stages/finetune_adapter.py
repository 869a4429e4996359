"""The stage `finetune` of an adapter's build: a LoRA trained on the 4-bit base, which stays as it is.

So the adapter also learns what 4 bits lost, and what was trained is what serves: nothing is merged or rounded after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.durable import write_json
from edgewright_builder.stages.finetune import note_precision
from edgewright_builder.stages.teacher import training_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from edgewright_builder.export.lora_slots import AdapterSlot, Factors
    from edgewright_builder.recipe.adapter_recipe import AdapterRecipe
    from edgewright_builder.recipe.hyperparameters import Hyperparameters
    from edgewright_builder.run.distillation_inputs import Distillation
    from edgewright_builder.run.resumable_run import FinishedStage
    from edgewright_builder.train.epoch import Training
    from edgewright_builder.train.loop import TrainStep

ADAPTER_PATH = "adapter/model.onnx_adapter"  # in the stage's folder and in the artifact


def run_finetune_adapter(
    job: Distillation,
    recipe: AdapterRecipe,
    modules: Sequence[str],
    data: FinishedStage,
    teacher: FinishedStage,
) -> FinishedStage:
    """Runs the stage, or keeps what it left. Product: `adapter`, the folder that ships."""
    inputs = {
        "checkpoint": job.student_digest,
        "data": data.output_digest,  # labels too, which T2 need not have seen
        "teacher": teacher.output_digest,
        "adapter": recipe.adapter.model_dump() | {"alpha": recipe.alpha, "modules": modules},
        "finetune": recipe.finetune.model_dump(exclude_none=True),
        "seed": recipe.seed,
    }

    def work(folder: Path) -> dict[str, Any]:
        note_precision(job)
        training = training_of(job, data, teacher)
        return finetune_adapter(job.student, training, recipe.hyperparameters, modules, folder)

    return job.run.stage("finetune", inputs, work, products=("adapter",))


def finetune_adapter(
    checkpoint: Path,
    training: Training,
    hyperparameters: Hyperparameters,
    modules: Sequence[str],
    folder: Path,
) -> dict[str, Any]:
    """Writes `adapter/model.onnx_adapter` (what ships), `peft` (the same for PEFT) and `curves.json`."""
    from edgewright_builder.export.lora_slots import write_adapter
    from edgewright_builder.quantization.gptq_checkpoint import load_dequantized
    from edgewright_builder.train.epoch import train_epoch
    from edgewright_builder.train.loop import recorder
    from edgewright_builder.train.lora import add_lora

    model = load_dequantized(checkpoint)
    before = _judge(model, training, hyperparameters)
    adapted = add_lora(model, hyperparameters, training.seed, modules, training.settings.precision)
    steps: list[TrainStep] = []
    train_epoch(adapted, training, hyperparameters, recorder(steps, training.on_progress))
    after = _judge(model, training, hyperparameters)
    adapted.save_pretrained(folder / "peft")  # type: ignore[operator]
    shipped = folder / ADAPTER_PATH
    shipped.parent.mkdir()
    write_adapter(adapter_factors(adapted), shipped)
    curves = {
        "train": [asdict(step) for step in steps],
        "validation": [before, after],
        "hyperparameters": asdict(hyperparameters),
    }
    write_json(folder / "curves.json", curves)
    return {
        "validation_loss_before": before["loss"],
        "validation_loss_after": after["loss"],
        "kl_before": before["kl"],
        "kl_after": after["kl"],
        "adapter_bytes": shipped.stat().st_size,
    }


def adapter_factors(adapted: nn.Module) -> dict[AdapterSlot, Factors]:
    """Returns the trained factors by their places in the exported graph."""
    from edgewright_builder.export.lora_slots import AdapterSlot, Factors
    from edgewright_builder.train.lora import lora_factors

    return {
        AdapterSlot(layer, module): Factors(_array(a.T), _array(b.T))
        for (layer, module), (a, b) in lora_factors(adapted).items()
    }


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().cpu().contiguous().numpy()
    return array


def _judge(model: nn.Module, training: Training, hyperparameters: Hyperparameters) -> dict[str, float]:
    """Returns the validation split's loss as it is trained, and its KL to the knowledge teacher at temperature 1."""
    from edgewright_builder.train.epoch import validation_divergence, validation_loss

    data, batch_tokens = training.data, training.settings.batch_tokens
    loss = validation_loss(model, data, hyperparameters, batch_tokens)
    kl = validation_divergence(model, data, batch_tokens)
    return {"loss": loss, "kl": kl.mean, "kl_standard_error": kl.standard_error}

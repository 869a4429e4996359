"""Recovery after GPTQ: the scales of a quantized model are trained end to end, towards the model it was made of.

The loss is KL(teacher ‖ model) at temperature 1, where the teacher is the 16-bit model before quantization; its final
hidden states are cached. The 4-bit codes stay as they are, unless their rounding is trained too.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgewright.durable import FileSystem, write_durably
from edgewright_builder.quantization.delta_aware import ZERO, pack
from edgewright_builder.quantization.frozen_codes import FrozenCodesLinear, frozen_layers
from edgewright_builder.quantization.learned_rounding import (
    LearnedRoundingLinear,
    hold_offsets,
    rounded_layers,
)
from edgewright_builder.train.epoch import DistillationData, loss_on
from edgewright_builder.train.loop import Course, TrainStep, recorder, train_steps
from edgewright_builder.train.samples import Sample, make_batches

if TYPE_CHECKING:
    from edgewright_builder.recipe.model_recipe import RecoverSettings
    from edgewright_builder.run.progress import OnProgress

STEPS_PER_SAVE = 8
STEPS_PER_SAVE_WITH_OFFSETS = 32  # twelve bytes a weight, with Adam's moments
# Few steps: the second moment has to settle within them (0.999 remembers a thousand).
ADAM_BETAS = (0.9, 0.95)
NORM_LEARNING_RATE_FACTOR = 0.05  # norms take absolute steps of 1e-4 where scales take relative ones of 2e-3
# Offsets take 1e-2 of a step of the grid where scales take relative ones of 2e-3.
OFFSET_LEARNING_RATE_FACTOR = 5.0


class OutOfTimeError(Exception):
    """The minutes that the recipe gives to recovery are over; what was learnt until then counts."""


@dataclass(frozen=True)
class RecoverySamples:
    """The task's pairs and general text that may be trained on; each step takes one or the other."""

    samples: Sequence[Sample]
    pairs: Sequence[int]  # indices of samples
    general: Sequence[int]

    def batches(self, settings: RecoverSettings, seed: int) -> list[list[int]]:
        """Returns the samples of each step: passes over both kinds, mixed evenly by `general_share`."""
        passes = {
            kind: self._passes(indices, settings, seed)
            for kind, indices in (("pairs", self.pairs), ("general", self.general))
            if indices
        }
        share = settings.general_share if len(passes) == 2 else float("general" in passes)
        steps = range(settings.steps)
        kinds = ["general" if int((step + 1) * share) > int(step * share) else "pairs" for step in steps]
        return [passes[kind].pop(0) for kind in kinds]

    def _passes(self, indices: Sequence[int], settings: RecoverSettings, seed: int) -> list[list[int]]:
        batches: list[list[int]] = []
        while len(batches) < settings.steps:
            batches += make_batches(self.samples, indices, settings.batch_tokens, seed + len(batches))
        return batches


def recover(
    model: nn.Module,
    data: DistillationData,
    batches: Sequence[Sequence[int]],
    settings: RecoverSettings,
    state: Path,
    on_progress: OnProgress,
    precision: torch.dtype | None = None,
) -> list[TrainStep]:
    """Trains the scales of `model` (`load_frozen_codes`) in place, and its norms where the settings say so.

    Layers of a model that went through `learn_rounding` train their offsets too.
    `batches` are the samples of each step, as indices into `data.samples`. `precision` is that of the factors in
    products with frozen weights while they are trained; None: float32.

    Goes on from `state`, where an interrupted training left one, to the same result. Returns the steps taken now.
    """
    parameters = _trained(model, settings)
    optimizer = torch.optim.AdamW(parameters, betas=ADAM_BETAS, weight_decay=0.0)
    optimizer.register_step_post_hook(lambda *_: hold_offsets(model))
    saved = _Saved(state, model, optimizer)
    first, seconds_before = saved.load()
    course = Course(data.samples, batches, settings.warmup_fraction, first)
    steps: list[TrainStep] = []
    record = recorder(steps, on_progress, tokens_before=_tokens(course, first))
    keep = _keeper(saved, seconds_before, settings.minutes_max)

    def on_step(step: TrainStep) -> None:
        record(step)
        keep(step)

    loss_parts = loss_on(model, data, alpha=1.0, temperature=1.0, precision=precision)
    try:
        with _products_in(precision or torch.float32, model):
            train_steps(optimizer, course, loss_parts, on_step)
    except OutOfTimeError:
        on_progress(settings.steps, settings.steps, f"steps, stopped after {settings.minutes_max:g} minutes")
    return steps


def _keeper(saved: _Saved, seconds_before: float, minutes_max: float | None) -> Callable[[TrainStep], None]:
    """Returns what saves after every few steps, and raises OutOfTimeError once the minutes are over."""
    steps_per_save = STEPS_PER_SAVE_WITH_OFFSETS if rounded_layers(saved.model) else STEPS_PER_SAVE
    started = time.monotonic() - seconds_before

    def keep(step: TrainStep) -> None:
        seconds = time.monotonic() - started
        if step.step % steps_per_save == 0 or step.step == step.steps:
            saved.save(step.step, seconds)
        if minutes_max is not None and seconds > 60 * minutes_max:
            raise OutOfTimeError

    return keep


@contextmanager
def _products_in(precision: torch.dtype, model: nn.Module) -> Iterator[None]:
    """Gives the 4-bit layers' products factors of this type until the block ends: what is judged is what ships."""
    layers = quantized_layers(model).values()
    for layer in layers:
        layer.precision = precision
    try:
        yield
    finally:
        for layer in layers:
            layer.precision = torch.float32


def _trained(model: nn.Module, settings: RecoverSettings) -> list[dict[str, Any]]:
    """Returns the optimizer's parameter groups, and makes them trainable."""
    scales = [layer.log_change for layer in quantized_layers(model).values()]
    groups: list[dict[str, Any]] = [{"params": scales, "lr": settings.learning_rate}]
    if offsets := [layer.offsets for layer in rounded_layers(model).values()]:
        learning_rate = OFFSET_LEARNING_RATE_FACTOR * settings.learning_rate
        groups.append({"params": offsets, "lr": learning_rate})
    if settings.train == "scales+norms":
        learning_rate = NORM_LEARNING_RATE_FACTOR * settings.learning_rate
        groups.append({"params": list(norms(model).values()), "lr": learning_rate})
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    return groups


def quantized_layers(model: nn.Module) -> dict[str, FrozenCodesLinear | LearnedRoundingLinear]:
    """Returns the 4-bit layers by name, whichever way they are trained."""
    return {**frozen_layers(model), **rounded_layers(model)}


def norms(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the gains of all RMSNorm and LayerNorm layers by name."""
    return {name: parameter for name, parameter in model.named_parameters() if name.endswith("norm.weight")}


def recovered_tensors(model: nn.Module, settings: RecoverSettings) -> dict[str, Tensor]:
    """Returns what a checkpoint has to change: `scales`, (groups, out), and `qweight` and norms where they changed."""
    layers = quantized_layers(model)
    scales = {f"{name}.scales": layer.scales.detach().T.cpu() for name, layer in layers.items()}
    codes = {
        f"{name}.qweight": pack(layer.codes + ZERO).cpu() for name, layer in rounded_layers(model).items()
    }
    trained = norms(model) if settings.train == "scales+norms" else {}
    return scales | codes | {name: gain.detach().cpu() for name, gain in trained.items()}


def _tokens(course: Course, steps: int) -> int:
    return sum(course.samples[index].counted_tokens for batch in course.batches[:steps] for index in batch)


@dataclass(frozen=True)
class _Saved:
    """The file that an interrupted training goes on from: parameters and optimizer after a number of steps."""

    path: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def save(self, steps: int, seconds: float) -> None:
        trained = [p.detach() for group in self.optimizer.param_groups for p in group["params"]]
        content = {
            "steps": steps, "seconds": seconds, "trained": trained, "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_durably(FileSystem(), self.path, buffer.getvalue())

    def load(self) -> tuple[int, float]:
        """Returns the steps done before and the seconds they took; 0 for a training that begins."""
        if not self.path.exists():
            return 0, 0.0
        content = torch.load(self.path, weights_only=True)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        with torch.no_grad():
            for parameter, value in zip(parameters, content["trained"], strict=True):
                parameter.copy_(value)
        self.optimizer.load_state_dict(content["optimizer"])
        return content["steps"], content["seconds"]

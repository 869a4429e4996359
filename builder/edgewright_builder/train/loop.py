"""The one training loop: search, fine-tuning, adapters and recovery differ in what they train and by which loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgewright.errors import InputError
from edgewright_builder.train.optimizers import drop_vanishing_gradients, learning_rate_factor
from edgewright_builder.train.samples import Sample

if TYPE_CHECKING:
    from edgewright_builder.run.progress import OnProgress

GRADIENT_NORM_MAX = 1.0
# From a step's samples, as indices, to the parts of its loss, which add up to it. One part is taken back through the
# model before the next is computed, so a step of any length needs the memory of its largest part.
LossParts = Callable[[Sequence[int]], Iterable[Tensor]]


class DivergedError(InputError):
    """These hyperparameters drove the loss beyond what a number can hold."""


@dataclass(frozen=True)
class TrainStep:
    """One optimizer step, for the curves and the progress line."""

    step: int
    steps: int
    tokens: int  # counted tokens so far
    loss: float


@dataclass(frozen=True)
class Course:
    """What a training goes through: the samples of each step, and how the learning rate rises and falls."""

    samples: Sequence[Sample]
    batches: Sequence[Sequence[int]]  # indices of samples, one entry a step
    warmup_fraction: float
    first: int = 0  # steps that an interrupted training, or another optimizer, has done
    last: int | None = None  # the step before which to stop; None: after all


def train_steps(
    optimizer: torch.optim.Optimizer,
    course: Course,
    loss_parts: LossParts,
    on_step: Callable[[TrainStep], None],
) -> None:
    """Takes the steps of `course` that are left, each on its samples; the optimizer's parameters change in place.

    Every parameter group starts from its own learning rate. Raises DivergedError when the loss is no longer finite.
    """
    parameters: list[nn.Parameter] = [each for group in optimizer.param_groups for each in group["params"]]
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    tokens = sum(_counted(course, index) for index in course.batches[: course.first])
    for step in range(course.first, len(course.batches) if course.last is None else course.last):
        factor = learning_rate_factor(step, len(course.batches), course.warmup_fraction)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        loss = 0.0
        for part in loss_parts(course.batches[step]):
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss is {loss} at step {step}; lower the learning rate, "
                f"which is {optimizer.param_groups[0]['initial_lr']:.1e}."
            )
        nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM_MAX)
        drop_vanishing_gradients(parameters)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += _counted(course, course.batches[step])
        on_step(TrainStep(step + 1, len(course.batches), tokens, loss))


def recorder(
    steps: list[TrainStep], on_progress: OnProgress, tokens_before: int = 0
) -> Callable[[TrainStep], None]:
    """Returns a listener that appends each step to `steps` and shows its loss and speed."""
    started = time.monotonic()

    def on_step(step: TrainStep) -> None:
        steps.append(step)
        rate = (step.tokens - tokens_before) / (time.monotonic() - started)
        on_progress(step.step, step.steps, f"steps, loss {step.loss:.3f}, {rate:.0f} tok/s")

    return on_step


def _counted(course: Course, indices: Sequence[int]) -> int:
    return sum(course.samples[index].counted_tokens for index in indices)

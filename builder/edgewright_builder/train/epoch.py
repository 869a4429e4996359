"""One epoch of distillation into a LoRA, and what its result is judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgewright_builder.models.bfloat16_products import torch_precision
from edgewright_builder.recipe.hyperparameters import Hyperparameters
from edgewright_builder.recipe.model_recipe import FinetuneSettings
from edgewright_builder.train.loop import Course, LossParts, TrainStep, train_steps
from edgewright_builder.train.optimizers import make_optimizer, optimizer_phases
from edgewright_builder.train.output_head import OutputHead, output_head
from edgewright_builder.train.packing import counted_hidden, layout_for
from edgewright_builder.train.samples import Sample, make_batches
from edgewright_builder.train.teacher_knowledge import HiddenStates, Knowledge

if TYPE_CHECKING:
    from edgewright_builder.run.progress import OnProgress


@dataclass(frozen=True)
class DistillationData:
    """Samples with what the teacher knows of them."""

    samples: Sequence[Sample]
    train: Sequence[int]
    validation: Sequence[int]
    knowledge: Knowledge
    pad_token: int


@dataclass(frozen=True)
class Training:
    """What every training of a build shares: its data, the recipe's settings and seed, and where progress is shown."""

    data: DistillationData
    settings: FinetuneSettings
    seed: int
    on_progress: OnProgress


@dataclass(frozen=True)
class Divergence:
    """KL(teacher ‖ student) at temperature 1 on held-out samples, in nats per token."""

    mean: float
    standard_error: float  # tokens of one sample are not independent: taken over samples
    tokens: int


@torch.inference_mode()
def knowledge_of(
    model: nn.Module, samples: Sequence[Sample], indices: Sequence[int], pad_token: int
) -> HiddenStates:
    """Returns `model` as a teacher of the samples `indices`; its states stay in memory."""
    states: dict[int, Tensor] = {}
    for batch in layout_for(model, samples, pad_token).batches(indices):
        parts = torch.split(
            counted_hidden(model, batch), [samples[index].counted_tokens for index in batch.indices]
        )
        states |= zip(batch.indices, parts, strict=True)
    return HiddenStates(states.__getitem__, output_head(model))


def train_epoch(
    adapted: nn.Module,
    training: Training,
    hyperparameters: Hyperparameters,
    on_step: Callable[[TrainStep], None],
) -> None:
    """Trains the LoRA of `adapted` in place: `epochs` passes over `data.train`, equation (5) on counted tokens.

    Each pass shuffles its batches anew; the learning rate rises and falls once over all of them. Raises DivergedError
    when the loss is no longer finite.
    """
    data, settings = training.data, training.settings
    model: nn.Module = adapted.base_model.model  # type: ignore[assignment, union-attr]
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    batches = [
        batch
        for epoch in range(hyperparameters.epochs)
        for batch in make_batches(data.samples, data.train, settings.batch_tokens, training.seed + epoch)
    ]
    course = Course(data.samples, batches, settings.warmup_fraction)
    adapted.train()
    loss_parts = loss_on(
        model, data, hyperparameters.alpha, hyperparameters.temperature, torch_precision(settings.precision)
    )
    phases = optimizer_phases(hyperparameters.optimizer)
    for phase, name in enumerate(phases):
        first, last = (len(batches) * part // len(phases) for part in (phase, phase + 1))
        optimizer = make_optimizer(
            name, parameters, hyperparameters.learning_rate, hyperparameters.weight_decay
        )
        train_steps(optimizer, replace(course, first=first, last=last), loss_parts, on_step)
    adapted.eval()


@torch.inference_mode()
def validation_divergence(model: nn.Module, data: DistillationData, batch_tokens: int) -> Divergence:
    """Returns KL(teacher ‖ model) at temperature 1 on the validation samples."""
    return divergences_to([data.knowledge], model, data, batch_tokens)[0]


@torch.inference_mode()
def divergences_to(
    teachers: Sequence[Knowledge], model: nn.Module, data: DistillationData, batch_tokens: int
) -> list[Divergence]:
    """Returns KL(teacher ‖ model) for several teachers from one pass of the model over the validation samples."""
    head, layout = output_head(model), layout_for(model, data.samples, data.pad_token)
    parts: list[list[Tensor]] = [[] for _ in teachers]
    for indices in make_batches(data.samples, data.validation, batch_tokens, seed=None):
        for batch in layout.batches(indices):
            logits = partial(_logits, counted_hidden(model, batch), head)
            for teacher, of_teacher in zip(teachers, parts, strict=True):
                of_teacher += teacher.divergences(logits, batch.indices)
    return [_divergence(of_teacher) for of_teacher in parts]


def _logits(hidden: Tensor, head: OutputHead, rows: slice, vocabulary: int) -> Tensor:
    return head.cut(vocabulary).logits(hidden[rows])


@torch.inference_mode()
def logits_divergences(
    teachers: Sequence[Knowledge], logits_of: Callable[[int], Tensor], data: DistillationData
) -> list[Divergence]:
    """Returns the same for a model that gives logits alone, each sample read once.

    logits_of: sample index → (counted tokens, vocabulary).
    """
    parts: list[list[Tensor]] = [[] for _ in teachers]
    for index in data.validation:
        logits = partial(_cut, logits_of(index))
        for teacher, of_teacher in zip(teachers, parts, strict=True):
            of_teacher += teacher.divergences(logits, [index])
    return [_divergence(of_teacher) for of_teacher in parts]


def _cut(logits: Tensor, rows: slice, vocabulary: int) -> Tensor:
    return logits[rows, :vocabulary]


def _divergence(parts: Sequence[Tensor]) -> Divergence:
    """Returns the mean over all tokens, from the divergences of each sample's."""
    sums, counts = [float(part.sum()) for part in parts], [len(part) for part in parts]
    mean = sum(sums) / sum(counts)
    return Divergence(mean, _ratio_standard_error(sums, counts, mean), sum(counts))


@torch.inference_mode()
def validation_loss(
    model: nn.Module, data: DistillationData, hyperparameters: Hyperparameters, batch_tokens: int
) -> float:
    """Returns equation (5) on the validation samples: the paper's objective, incomparable between different α and τ."""
    loss_parts = loss_on(model, data, hyperparameters.alpha, hyperparameters.temperature)
    total, tokens = 0.0, 0
    for indices in make_batches(data.samples, data.validation, batch_tokens, seed=None):
        counted = sum(data.samples[index].counted_tokens for index in indices)
        total += sum(float(part) for part in loss_parts(indices)) * counted
        tokens += counted
    return total / tokens


def loss_on(
    model: nn.Module,
    data: DistillationData,
    alpha: float,
    temperature: float,
    precision: torch.dtype | None = None,
) -> LossParts:
    """Returns equation (5) as a function of samples, averaged over their counted tokens, part by part.

    `precision` is that of the factors by which gradients go back through the output head; None: the head's own.
    """
    head = output_head(model).with_gradients_in(precision)
    layout = layout_for(model, data.samples, data.pad_token)

    def parts(indices: Sequence[int]) -> Iterator[Tensor]:
        for batch in layout.batches(indices):
            yield data.knowledge.loss(counted_hidden(model, batch), head, batch, alpha, temperature)

    return parts


def _ratio_standard_error(sums: Sequence[float], counts: Sequence[int], mean: float) -> float:
    """Returns the standard error of Σsums/Σcounts with samples as the independent unit.

    Cochran, Sampling Techniques, section 6.3.
    """
    n = len(sums)
    if n < 2:
        return 0.0
    squares = sum((value - mean * count) ** 2 for value, count in zip(sums, counts, strict=True))
    return float((squares / (n * (n - 1))) ** 0.5 / (sum(counts) / n))

"""The hyperparameters of distillation, and the ranges in which the search looks for them.

Both are Table 1 of the paper (Sander, Jalaian, Dasari, arXiv 2601.09865), with the optimizer as one more dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from edgewright.file_model import FileModel

# adam-rms is AdamW with its update scaled to Muon's size, a control; `then` changes the optimizer half-way.
Optimizer = Literal["adam", "muon", "adam-rms", "adam-then-muon", "muon-then-adam"]
OPTIMIZERS: tuple[Optimizer, ...] = ("adam", "muon")  # the search's


@dataclass(frozen=True)
class Hyperparameters:
    """How one training goes."""

    optimizer: Optimizer
    learning_rate: float
    weight_decay: float
    lora_rank: int
    lora_scale: float  # a: ΔW = a·BA
    temperature: float
    alpha: float  # share of the KL divergence in the loss; the rest is cross-entropy
    epochs: int = 1  # passes over the data; 0: the student stays as it is


class FixedHyperparameters(FileModel):
    """A training that is known to suit. Given in a recipe, nothing is searched."""

    # adam-rms: AdamW with updates of Muon's size; X-then-Y changes half-way
    optimizer: Optimizer = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-4  # η
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0  # w_d
    lora_rank: Annotated[int, Field(ge=1, le=4096)] = 32  # r
    lora_scale: Annotated[float, Field(gt=0, le=100)] = 2.0  # a: ΔW = a·BA
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0  # T, of the distillation
    # α, the share of the KL in the loss; the rest is cross-entropy
    alpha: Annotated[float, Field(ge=0, le=1)] = 1.0
    epochs: Annotated[int, Field(ge=0, le=100)] = 1  # passes over the data; 0: no fine-tuning

    @property
    def values(self) -> Hyperparameters:
        """The same as what trainings take."""
        return Hyperparameters(**self.model_dump())


@dataclass(frozen=True)
class TrialSettings:
    """What one trial of the search tries: how to train, and the group size that the result is rounded with."""

    hyperparameters: Hyperparameters
    group_size: int


class Bounds(FileModel):
    """A closed range."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


def _pair(value: Any) -> Any:
    return {"low": value[0], "high": value[1]} if isinstance(value, list) and len(value) == 2 else value


Range = Annotated[Bounds, BeforeValidator(_pair)]


SPACE_LIMITS = {
    "lora_scale": (1e-3, 100.0),
    "lora_rank": (1.0, 4096.0),
    "weight_decay": (0.0, 10.0),
    "learning_rate": (1e-9, 1e2),
    "temperature": (1e-2, 100.0),
    "alpha": (0.0, 1.0),
}


class SearchSpace(FileModel):
    """The range of each hyperparameter."""

    lora_scale: Range = Bounds(low=0.5, high=2.0)  # a: ΔW = a·BA
    lora_rank: Range = Bounds(low=8, high=64)  # r, in steps of 8
    weight_decay: Range = Bounds(low=0.0, high=2.0)  # w_d
    learning_rate: Range = Bounds(low=1e-5, high=1e-3)  # η, log scale
    temperature: Range = Bounds(low=0.5, high=8.0)  # T, of the distillation
    alpha: Range = Bounds(low=0.0, high=1.0)  # α, the share of the KL in the loss; the rest is cross-entropy
    optimizer: tuple[Optimizer, ...] = Field(default=OPTIMIZERS, min_length=1)  # optimizers to try
    group_size: tuple[Literal[32, 64, 128], ...] = ()  # 4-bit group sizes to try; empty: the plan's

    @model_validator(mode="after")
    def _possible(self) -> SearchSpace:
        for key, (lowest, highest) in SPACE_LIMITS.items():
            bounds: Bounds = getattr(self, key)
            if not lowest <= bounds.low <= bounds.high <= highest:
                raise ValueError(
                    f"{key} must lie within [{lowest}, {highest}], not [{bounds.low}, {bounds.high}]"
                )
        return self

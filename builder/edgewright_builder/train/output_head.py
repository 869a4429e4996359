"""What turns a model's final hidden states into logits: a matrix, and in some families a scale and a soft cap."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from edgewright_builder.models.logits import logit_scale


@dataclass(frozen=True)
class OutputHead:
    """Logits are c·tanh(W·h / c) with the soft cap c (Gemma 2, arXiv 2408.00118, section 2), or W·h without one."""

    weight: Tensor  # (vocabulary, hidden), frozen; a scale of the logits is multiplied into it
    softcap: float | None = None
    for_gradients: Tensor | None = None  # the matrix in another precision, which gradients go back through

    def __len__(self) -> int:
        """The rows of the matrix."""
        return len(self.weight)

    def cut(self, vocabulary: int | None) -> OutputHead:
        """Returns the head of the first `vocabulary` tokens."""
        rounded = None if self.for_gradients is None else self.for_gradients[:vocabulary]
        return OutputHead(self.weight[:vocabulary], self.softcap, rounded)

    def of(self, tokens: slice, precision: torch.dtype) -> OutputHead:
        """Returns the head of these tokens alone, in `precision`."""
        return OutputHead(self.weight[tokens].to(precision), self.softcap)

    def with_gradients_in(self, precision: torch.dtype | None) -> OutputHead:
        """Returns the head whose gradients go back through its matrix in `precision`; its logits stay as they are."""
        return self if precision is None else replace(self, for_gradients=self.weight.to(precision))

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns (tokens, vocabulary) from final hidden states, (tokens, hidden)."""
        product = hidden @ self.weight.T
        return product if self.softcap is None else (product / self.softcap).tanh() * self.softcap

    def bend(self, logits: Tensor) -> Tensor | None:
        """Returns d logits / d (W·h), which is 1 − (logits / c)²; None where it is 1."""
        return None if self.softcap is None else 1 - (logits / self.softcap) ** 2

    def pull_back(self, slope: Tensor, bend: Tensor | None) -> Tensor:
        """Returns the gradient to the hidden states from that to the logits, which may be overwritten."""
        through = slope if bend is None else slope.mul_(bend)
        weight = self.weight if self.for_gradients is None else self.for_gradients
        return through.to(weight.dtype) @ weight


def output_head(model: nn.Module) -> OutputHead:
    """Returns the head of a causal language model."""
    weight: Tensor = model.get_output_embeddings().weight.detach()  # type: ignore[operator]
    scale = logit_scale(model.config)
    softcap = getattr(model.config, "final_logit_softcapping", None)
    return OutputHead(weight if scale == 1 else weight * scale, None if not softcap else float(softcap))

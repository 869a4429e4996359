"""Spares GPTQModel the products that it computes more than once, with the same result to the last bit.

With `true_sequential` GPTQModel 7.6 runs a decoder layer five times: once for each group of projections whose Hessians
it collects, and once to feed the next layer. Of these passes only the products behind the last rounded projection are
new. Only the process that quantizes imports this.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from gptqmodel.nn_modules import hooked_linear
from torch import Tensor

BYTES_MAX = 2**30  # of remembered inputs and outputs; the rest is computed again


@dataclass(frozen=True)
class Product:
    """One output of a linear layer, and all that it depends on."""

    weight: Tensor
    inputs: Tensor
    output: Tensor

    def matches(self, weight: Tensor, inputs: Tensor) -> bool:
        """Whether the layer would compute this very output again."""
        return (
            self.inputs.shape == inputs.shape
            and torch.equal(self.inputs, inputs)
            and torch.equal(self.weight, weight)
        )

    @property
    def size_bytes(self) -> int:
        """What remembering it costs."""
        return sum(part.nbytes for part in (self.weight, self.inputs, self.output))

    def copy(self) -> Product:
        """Returns the same with tensors of its own, which nobody changes in place."""
        return Product(self.weight.clone(), self.inputs.clone(), self.output.clone())


class Products:
    """The outputs of one decoder layer's projections."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self.clear()

    def clear(self) -> None:
        """Forgets everything: the next decoder layer is reached."""
        self._of: defaultdict[int, list[Product]] = defaultdict(list)
        self._size_bytes = 0

    def get(self, layer: torch.nn.Linear, inputs: Tensor) -> Tensor | None:
        """Returns a copy of the output that `layer` gave for this input with these weights; None if it gave none."""
        known = self._of[id(layer)]
        return next(
            (product.output.clone() for product in known if product.matches(layer.weight, inputs)), None
        )

    def add(self, layer: torch.nn.Linear, inputs: Tensor, output: Tensor) -> None:
        """Remembers an output, unless the limit is reached."""
        product = Product(layer.weight.detach(), inputs, output)
        if self._size_bytes + product.size_bytes <= self._bytes_max:
            self._of[id(layer)].append(product.copy())
            self._size_bytes += product.size_bytes


def install(products: Products) -> None:
    """Makes GPTQModel's linear layers look up their outputs in `products` from now on.

    A layer with a hook collects its Hessian, and its weights change after the pass. So its output is not remembered,
    and where the pass ends with it, not computed either: GPTQ's Hessian depends on the inputs alone.
    """
    compute = hooked_linear.HookedLinear.forward

    def forward(self: Any, inputs: Tensor) -> Tensor:
        if self.forward_hook is not None and self.forward_hook_last:
            self.forward_hook(
                self, (inputs,), inputs.new_zeros(1).expand(*inputs.shape[:-1], self.out_features)
            )
            raise hooked_linear.STOP_FORWARD_EXCEPTION.with_traceback(None)
        if self.forward_hook is not None:
            return compute(self, inputs)  # type: ignore[no-any-return]
        known = products.get(self, inputs)
        if known is not None:
            return known
        output: Tensor = compute(self, inputs)
        products.add(self, inputs, output)
        return output

    hooked_linear.HookedLinear.forward = forward

"""Slots for LoRA adapters in an exported graph, and adapter files for them.

y = W·x becomes y = W·x + (x·A)·B, with A and B inputs of the graph that have a default of rank 0: without an adapter
they add zeros, and an adapter of any rank fits. ONNX Runtime takes them by name from an `.onnx_adapter` file. They
are float16, half the bytes on the way to a board, and are cast where the graph computes in float32.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.errors import InputError

# How onnxruntime-genai's model builder names the node of a projection.
NODE_PATTERN = re.compile(r"/model/layers\.(?P<layer>\d+)/(?:attn|mlp)/(?P<module>\w+)/MatMul\w*")
PACKABLE = ("q_proj", "k_proj", "v_proj")  # one product in the builder's graph unless asked otherwise
ADAPTER_VERSION = 1


@dataclass(frozen=True)
class AdapterSlot:
    """Where an adapter goes: `module` of decoder layer `layer`."""

    layer: int
    module: str

    @property
    def names(self) -> tuple[str, str]:
        """The graph's inputs A, shape (in, rank), and B, shape (rank, out)."""
        slot = f"layers.{self.layer}.{self.module}"
        return f"{slot}.lora_A", f"{slot}.lora_B"


@dataclass(frozen=True)
class Factors:
    """One module's adapter: ΔW·x = (x·a)·b, the LoRA scale being part of b."""

    a: NDArray[np.float32]  # (in, rank)
    b: NDArray[np.float32]  # (rank, out)


def add_slots(graph_file: Path, modules: Sequence[str]) -> int:
    """Prepares each of `modules` in every layer of the graph for adapters; returns how many slots there are.

    Raises InputError for a module the graph does not have.
    """
    import onnx

    model = onnx.load(str(graph_file), load_external_data=False)
    nodes: list[Any] = []
    slotted: set[str] = set()
    slots = 0
    for node in model.graph.node:
        nodes.append(node)
        slot = _slot_at(node)
        if slot is not None and slot.module in modules:
            nodes += _slot_nodes(model.graph, node, slot)
            slotted.add(slot.module)
            slots += 1
    if missing := sorted(set(modules) - slotted):
        raise InputError(
            f"`serving.adapters.modules` names {missing[0]}, which the exported graph does not have."
        )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(graph_file))
    return slots


def write_adapter(factors: Mapping[AdapterSlot, Factors], file: Path) -> None:
    """The `.onnx_adapter` file of `factors`; the same factors give the same bytes."""
    import onnxruntime

    tensors = {}
    for slot in sorted(factors, key=lambda slot: (slot.layer, slot.module)):
        for name, value in zip(slot.names, (factors[slot].a, factors[slot].b), strict=True):
            half = np.ascontiguousarray(value.astype(np.float16))
            tensors[name] = onnxruntime.OrtValue.ortvalue_from_numpy(half)
    adapter = onnxruntime.AdapterFormat()
    adapter.set_adapter_version(ADAPTER_VERSION)
    adapter.set_model_version(ADAPTER_VERSION)
    adapter.set_parameters(tensors)
    adapter.export_adapter(str(file))


def _slot_at(node: Any) -> AdapterSlot | None:
    match = NODE_PATTERN.fullmatch(node.name)
    if match is None or node.op_type not in ("MatMulNBits", "MatMul"):
        return None
    return AdapterSlot(int(match["layer"]), match["module"])


def _slot_nodes(graph: Any, node: Any, slot: AdapterSlot) -> list[Any]:
    """Returns the nodes after `node` that add an adapter to what it computes. They replace `node`."""
    from onnx import TensorProto, helper

    inputs, outputs = _shape(graph, node)
    whole, (name_a, name_b) = node.output[0], slot.names
    node.output[0] = f"{whole}_base"
    rank = f"{name_a}_rank"  # a symbol of its own: an adapter may leave slots out
    for name, default, shape in (
        (name_a, (inputs, 0), (inputs, rank)),
        (name_b, (0, outputs), (rank, outputs)),
    ):
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape))
        graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT16, default, b"", raw=True))
    a, b, reduced, change = (f"{name_a}_32", f"{name_b}_32", f"{name_a}_x", f"{name_b}_x")
    return [
        helper.make_node("Cast", [name_a], [a], f"{name_a}/Cast", to=TensorProto.FLOAT),
        helper.make_node("Cast", [name_b], [b], f"{name_b}/Cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", [node.input[0], a], [reduced], f"{name_a}/MatMul"),
        helper.make_node("MatMul", [reduced, b], [change], f"{name_b}/MatMul"),
        helper.make_node("Add", [node.output[0], change], [whole], f"{name_b}/Add"),
    ]


def _shape(graph: Any, node: Any) -> tuple[int, int]:
    """(in, out) of the product."""
    if node.op_type == "MatMulNBits":
        sizes = {attribute.name: attribute.i for attribute in node.attribute}
        return sizes["K"], sizes["N"]
    weight = next(tensor for tensor in graph.initializer if tensor.name == node.input[1])
    return weight.dims[0], weight.dims[1]

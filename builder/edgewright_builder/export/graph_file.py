"""An exported graph that is edited: model.onnx in memory, its weights left in model.onnx.data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA_FILE = "model.onnx.data"
ALIGNMENT_BYTES = 4096  # so that the runtime can map a tensor's pages
INLINE_BYTES_MAX = 1024


class GraphFile:
    """`folder/model.onnx`, loaded without its weights. Tensors that are added go to the end of the file of weights."""

    def __init__(self, folder: Path) -> None:
        import onnx

        self.folder = folder
        self.model: Any = onnx.load(str(folder / "model.onnx"), load_external_data=False)
        self.graph: Any = self.model.graph

    def add_tensor(self, name: str, value: NDArray[Any]) -> str:
        """Adds a constant, or takes the place of the one of that name. Returns the name."""
        from onnx import TensorProto, numpy_helper

        tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
        data = tensor.raw_data
        if len(data) > INLINE_BYTES_MAX:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, fact in (
                ("location", DATA_FILE), ("offset", self._append(data)), ("length", len(data)),
            ):  # fmt: skip
                tensor.external_data.add(key=key, value=str(fact))
        self.remove_tensor(name)
        self.graph.initializer.append(tensor)
        return name

    def remove_tensor(self, name: str) -> None:
        """Removes the constant of that name, if there is one."""
        for position, tensor in enumerate(self.graph.initializer):
            if tensor.name == name:
                del self.graph.initializer[position]
                return

    def replace_nodes(self, nodes: list[Any]) -> None:
        """Puts `nodes` in the place of all nodes. Shapes written beside the nodes are dropped: they may not hold."""
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        del self.graph.value_info[:]

    def save(self) -> None:
        """Writes model.onnx."""
        import onnx

        onnx.save(self.model, str(self.folder / "model.onnx"))

    def _append(self, data: bytes) -> int:
        with (self.folder / DATA_FILE).open("ab") as stream:
            stream.write(bytes(-stream.tell() % ALIGNMENT_BYTES))
            offset = stream.tell()
            stream.write(data)
        return offset

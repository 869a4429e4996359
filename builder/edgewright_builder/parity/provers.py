"""How each engine's computation is tried: what makes its tiny checkpoint, what serves it, and what that rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgewright_agent.engine_worker import model as worker_model
from edgewright_agent.engines import llama_cpp as llama_cpp_engine
from edgewright_builder import export
from edgewright_builder.export import gguf
from edgewright_builder.parity import llama_cpp, onnx
from edgewright_builder.parity.compare import Served, Tokens

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Prover:
    """One engine's."""

    versions: Callable[[], dict[str, str]]  # of what exports, serves and is compared with
    rooms: tuple[Path, ...]  # folders whose code exports, serves and compares
    sequences: Sequence[Tokens]
    make: Callable[[Mapping[str, Any], Path], nn.Module]  # writes a checkpoint
    serve: Callable[[Path, bool, Path], Served]  # of a checkpoint, tied or not, with a scratch folder


def _rooms(*packages: ModuleType) -> tuple[Path, ...]:
    return (Path(__file__).parent, *(Path(str(package.__file__)).parent for package in packages))


PROVERS: Mapping[str, Prover] = {
    "onnxruntime-genai": Prover(
        onnx.versions, _rooms(export, worker_model), onnx.SEQUENCES, onnx.make, onnx.serve
    ),
    "llama.cpp": Prover(
        llama_cpp.versions,
        _rooms(gguf, llama_cpp_engine),
        llama_cpp.SEQUENCES,
        llama_cpp.make,
        llama_cpp.serve,
    ),
}

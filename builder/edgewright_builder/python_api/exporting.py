"""A finished run's model as the file of another runtime: for Ollama, LM Studio, vLLM or whatever loads such a file."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.errors import InputError
from edgewright.sizes import format_bytes
from edgewright_builder.artifact.artifact import open_artifact
from edgewright_builder.fit.engines.traits import Format
from edgewright_builder.python_api.arguments import as_path
from edgewright_builder.python_api.libraries import own_errors
from edgewright_builder.show.sheet import Lines, Sheet, shown

LOADED_BY: Mapping[Format, str] = {
    "gguf": "llama.cpp, Ollama, LM Studio",
    "onnx": "onnxruntime-genai",
    "gptq": "vLLM, SGLang, TensorRT Edge-LLM, transformers",
}
BITS = {"gguf": (8, 4), "onnx": (8, 4), "gptq": (16,)}  # of the embedding, by format


@shown
@dataclass(frozen=True)
class ExportedModel:
    """What was written."""

    format: str  # gguf, onnx or gptq
    path: str  # the file, or the folder of files
    size_bytes: int
    made_from: str  # the checkpoint
    embedding_bits: int
    loaded_by: str

    def _sheet(self) -> Sheet:
        size, bits = format_bytes(self.size_bytes), self.embedding_bits
        lines = [
            f"Wrote {self.path}: {size}, codes and scales of {self.made_from}, embedding and head in {bits} bits.",
            f"Loaded by {self.loaded_by}.",
        ]
        return Sheet((Lines(lines),))


def export(run: str | Path, *, to: Format, out: str | Path) -> ExportedModel:
    """Writes the model of a run, or of a folder with a GPTQ checkpoint, in a format to the new or empty folder `out`.

    `gguf` is one file, named after the run; `onnx` and `gptq` are folders of an engine's files with the tokenizer's.
    Raises InputError for a format that is unknown or can't hold the model, for a checkpoint that is damaged, and for an
    `out` that holds something.
    """
    if to not in LOADED_BY:
        raise InputError(f"There is no format {to!r}; there are {', '.join(LOADED_BY)}.")
    source, folder = as_path(run, "the run"), as_path(out, "the folder")
    checkpoint, name, bits = _checkpoint(source)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder; choose another.")
    _require_whole(checkpoint)
    embedding_bits = bits if bits in BITS[to] else BITS[to][0]
    with (
        own_errors(),
        _made(folder),
        tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch,
    ):
        written = _write(to, checkpoint, name, embedding_bits, Path(scratch), folder)
    files = [written] if written.is_file() else [file for file in written.rglob("*") if file.is_file()]
    size_bytes = sum(file.stat().st_size for file in files)
    return ExportedModel(to, str(written), size_bytes, str(checkpoint), embedding_bits, LOADED_BY[to])


def _write(to: Format, checkpoint: Path, name: str, embedding_bits: int, scratch: Path, folder: Path) -> Path:
    from edgewright_builder.export.for_engine import EXPORTERS, ExportJob

    EXPORTERS[to].quantized(ExportJob(checkpoint, embedding_bits, name=name), scratch)
    if to == "gguf":
        return (scratch / "engine" / "model.gguf").replace(folder / f"{name}.gguf")
    for file in [*(scratch / "engine").iterdir(), *(scratch / "tokenizer").iterdir()]:
        shutil.move(file, folder / file.name)
    return folder


def _require_whole(checkpoint: Path) -> None:
    """Raises InputError for weights or a configuration that a library would stumble over, or misread in silence."""
    from edgewright_builder.fit.architecture import architecture_from_config
    from edgewright_builder.models.folder import read_config
    from edgewright_builder.models.sources import resolve_model
    from edgewright_builder.quantization.gptq_settings import require_gptq

    resolve_model(str(checkpoint))
    require_gptq(checkpoint)
    architecture_from_config(read_config(checkpoint))


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes the folder unless it is there, and takes it away again where nothing comes of it."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if is_new:
            shutil.rmtree(folder)
        raise


def _checkpoint(source: Path) -> tuple[Path, str, int | None]:
    """Returns the GPTQ checkpoint that a run ships, its name and the bits of its embedding."""
    if (source / "config.json").is_file():
        return source, source.resolve().name, None
    for stage in ("recover", "quantize"):
        checkpoint = source / stage / "model"
        if (checkpoint / "config.json").is_file():
            plan = _json(source / "plan.json")
            return checkpoint, _name_of(source), plan.get("embedding_bits")
    raise InputError(
        f"{source} holds no quantized model: give the folder of a run that has got to `quantize`, or a GPTQ checkpoint."
    )


def _name_of(run: Path) -> str:
    """Returns the release's name, which is a file's name too; the folder's where there is no valid manifest."""
    try:
        return open_artifact(run / "artifact").manifest.name
    except InputError:
        return run.resolve().name


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

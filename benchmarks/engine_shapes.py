"""The configurations whose memory is measured, and folders an engine can be started on for each."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synthetic_export import write_synthetic_export
from synthetic_gptq import write_synthetic_gptq

from edgewright.manifest import Manifest
from edgewright_builder.artifact.fields import draft_manifest
from edgewright_builder.export.gguf.file import write_gguf
from edgewright_builder.export.llama_cpp import MODEL_FILE
from edgewright_builder.fit.architecture import Architecture, architecture_from_config
from edgewright_builder.fit.catalogue import find_builtin
from edgewright_builder.fit.engines import engine_traits
from edgewright_builder.fit.memory import Configuration

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    model: str  # a built-in model's name, with "-untied" where its head is to be a matrix of its own
    configuration: Configuration

    @property
    def architecture(self) -> Architecture:
        """The model's shape."""
        name = self.model.removesuffix("-untied")
        builtin = find_builtin(name)
        assert builtin is not None, name
        shape = architecture_from_config(builtin.config)
        return replace(shape, tied_embeddings=False) if name != self.model else shape


def case(
    model: str, layers: int, group: int, embedding_bits: int, context: int, concurrency: int = 1
) -> Case:
    """A case of 4-bit weights."""
    return Case(model, Configuration(layers, 4, group, embedding_bits, context, concurrency))


CASES = (
    *(case("smollm2-135m", layers, 64, 8, 2048) for layers in (15, 20, 25, 30)),
    *(case("smollm2-135m", 30, 64, bits, context) for bits, context in ((8, 512), (4, 2048), (8, 4096), (8, 8192))),
    *(case("smollm2-360m", 32, 64, bits, context) for bits, context in ((8, 2048), (4, 1024))),
    *(case("llama-3.2-1b", layers, 128, bits, context)
      for layers, bits, context in ((16, 8, 512), (16, 8, 2048), (16, 4, 1024), (8, 8, 512))),
    case("smollm2-135m", 30, 64, 8, 1024, 4),
    case("llama-3.2-1b", 16, 128, 8, 512, 2),
    case("llama-3.2-1b-untied", 16, 128, 8, 512),
    *(case("smollm2-1.7b", 24, 64, bits, context) for bits, context in ((8, 512), (4, 1024))),
    *(case("llama-3.2-3b", layers, 128, bits, context) for layers, bits, context in ((28, 8, 512), (28, 4, 1024))),
)  # fmt: skip


def cases_for(engine: str) -> list[Case]:
    """The same shapes with the group and the KV cache that the plan takes for an engine."""
    traits = engine_traits(engine)
    return [
        replace(
            each,
            configuration=replace(
                each.configuration,
                group_size=traits.plan_group_sizes(each.architecture)[0] if traits.storage.block_weights
                else each.configuration.group_size,
                kv_bits=traits.kv_bits[0],
            ),
        )
        for each in CASES
    ]  # fmt: skip


def write_release(measured: Case, tokenizer: Path, folder: Path, engine: str) -> Manifest:
    """An artifact of random weights in the empty `folder`, and the manifest to start it with."""
    (folder / "engine").mkdir()
    _write_tokenizer(tokenizer, folder / "tokenizer", measured.architecture.vocab_size)
    if engine_traits(engine).format == "gguf":
        _write_gguf(measured, folder)
    else:
        write_synthetic_export(measured.architecture, measured.configuration, folder / "engine")
    return manifest_of(folder, measured, engine)


def _write_gguf(measured: Case, folder: Path) -> None:
    """As a build does: from a GPTQ checkpoint."""
    m = measured.configuration
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        checkpoint = Path(scratch)
        write_synthetic_gptq(measured.architecture.with_layers(m.layers), m.group_size, checkpoint)
        for file in (folder / "tokenizer").iterdir():
            shutil.copyfile(file, checkpoint / file.name)
        write_gguf(checkpoint, m.embedding_bits, folder / "engine" / MODEL_FILE, "fit-accuracy")


def manifest_of(folder: Path, measured: Case, engine: str) -> Manifest:
    """Enough of a manifest to start the engine."""
    model, m = measured.architecture.with_layers(measured.configuration.layers), measured.configuration
    fields: dict[str, Any] = {
        "name": "fit-accuracy", "version": "0", "device_profiles": ["this-host"], "engine": {"kind": engine},
        "model": {
            "architecture": model.model_type, "parameters": model.parameters, "layers": m.layers,
            "hidden_size": model.hidden_size, "vocab_size": model.vocab_size,
            "tied_embeddings": model.tied_embeddings, "weight_bits": 4, "embedding_bits": m.embedding_bits,
            "group_size": m.group_size,
        },
        "limits": {"context_tokens": m.context_tokens, "concurrency": m.concurrency},
        "memory": {"budget_bytes": 1, "predicted_peak_bytes": 1, "error_bytes": 0, "calibrated_on": "nothing"},
    }  # fmt: skip
    return draft_manifest(folder, fields)


def _write_tokenizer(source: Path, target: Path, vocab_size: int) -> None:
    """SmolLM2's tokenizer, grown by made-up merges to the vocabulary's size: its memory follows that."""
    target.mkdir()
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    settings = json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary, merges = settings["model"]["vocab"], settings["model"]["merges"]
    pieces = [token for token in vocabulary if len(token) < 8]
    pairs = ((left, right) for left in pieces for right in pieces[:400] if left + right not in vocabulary)
    for left, right in pairs:
        if len(vocabulary) >= vocab_size:
            break
        if left + right not in vocabulary:
            vocabulary[left + right] = len(vocabulary)
            merges.append([left, right] if isinstance(merges[0], list) else f"{left} {right}")
    (target / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")

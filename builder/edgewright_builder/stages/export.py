"""The stage `export`: the GPTQ checkpoint in the form that the engine loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright_builder.export.for_engine import ExportJob, exporter_for
from edgewright_builder.fit.configuration.features import is_written_anew
from edgewright_builder.fit.engines import DEFAULT_ENGINE, engine_traits
from edgewright_builder.models.folder import read_config

if TYPE_CHECKING:
    from edgewright_builder.run.build_definition import Build
    from edgewright_builder.run.resumable_run import FinishedStage


def run_export(build: Build, quantized: FinishedStage) -> FinishedStage:
    """Runs the stage, or keeps what it left. Products: `engine` and `tokenizer`, the folders that ship."""
    serving, configuration = build.recipe.serving, build.plan.configuration
    embedding_bits, context_tokens = configuration.embedding_bits, configuration.context_tokens
    modules = () if serving.adapters is None else serving.adapters.modules
    inputs = {"checkpoint": quantized.output_digest, "embedding_bits": embedding_bits}
    if modules:
        inputs["adapter_modules"] = modules
    if serving.engine != DEFAULT_ENGINE:
        inputs["engine"] = serving.engine
    if engine_traits(serving.engine).format == "gguf":
        inputs["name"] = build.recipe.name  # stands in the file
    if is_written_anew(read_config(build.distillation.student)):
        inputs["context_tokens"] = context_tokens

    def work(folder: Path) -> dict[str, Any]:
        checkpoint = quantized.folder / "model"
        job = ExportJob(checkpoint, embedding_bits, modules, context_tokens, build.recipe.name)
        return exporter_for(serving.engine).quantized(job, folder)

    return build.run.stage("export", inputs, work, products=("engine", "tokenizer"))
